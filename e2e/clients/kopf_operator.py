"""An operator written with kopf: a ConfigMap for every KopfWidget, as kopf's documentation shows."""

import kopf
import kubernetes

WIDGETS = ("e2e.example.com", "v1", "kopfwidgets")


@kopf.on.startup()
def configure(settings, **_):
    kubernetes.config.load_kube_config()
    settings.posting.level = 100


@kopf.on.create(*WIDGETS)
@kopf.on.update(*WIDGETS)
def reconcile(spec, name, namespace, meta, patch, **_):
    core = kubernetes.client.CoreV1Api()
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"size": str(spec["size"])}}
    kopf.adopt(body)
    try:
        core.create_namespaced_config_map(namespace, body)
    except kubernetes.client.ApiException as error:
        if error.status != 409:
            raise
        core.patch_namespaced_config_map(name, namespace, body)
    patch.status["size"] = spec["size"]
    patch.status["observedGeneration"] = meta["generation"]


@kopf.on.delete(*WIDGETS)
def farewell(name, namespace, **_):
    core = kubernetes.client.CoreV1Api()
    core.create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-gone"}})
