"""Python's `kubernetes` client against a cluster: list, create, patch and watch, as its documentation shows."""

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

NAME = "e2e-python"

config.load_kube_config()
core = client.CoreV1Api()
apps = client.AppsV1Api()

assert core.list_node().items, "no nodes"
assert any(d.metadata.name == "hostnames" for d in apps.list_namespaced_deployment("default").items)

revision = core.list_namespaced_config_map("default", limit=1).metadata.resource_version
body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=NAME), data={"a": "1"})
made = core.create_namespaced_config_map("default", body)
assert made.metadata.uid and made.metadata.creation_timestamp

patched = core.patch_namespaced_config_map(NAME, "default", {"data": {"a": None, "b": "2"}})
assert patched.data == {"b": "2"}, patched.data

try:
    core.create_namespaced_config_map("default", body)
    raise AssertionError("created twice")
except ApiException as error:
    assert error.status == 409, error

scale = apps.read_namespaced_deployment_scale("hostnames", "default")
assert scale.spec.replicas == 3, scale

core.delete_namespaced_config_map(NAME, "default")
seen = []
for event in watch.Watch().stream(
    core.list_namespaced_config_map,
    "default",
    resource_version=revision,
    field_selector=f"metadata.name={NAME}",
    timeout_seconds=20,
):
    seen.append(event["type"])
    if event["type"] == "DELETED":
        break
assert seen == ["ADDED", "MODIFIED", "DELETED"], seen
print("all as expected")
