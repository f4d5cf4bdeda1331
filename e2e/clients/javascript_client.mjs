// The JavaScript client against a cluster: list, create, patch, watch, logs and exec, as its documentation shows.

import assert from 'node:assert';
import { Writable } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const NAME = 'e2e-javascript';
const namespace = 'default';

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

assert((await core.listNode()).items.length > 0, 'no nodes');
const deployments = await apps.listNamespacedDeployment({ namespace });
assert(deployments.items.some((deployment) => deployment.metadata.name === 'hostnames'));

const listed = await core.listNamespacedConfigMap({ namespace, limit: 1 });
const body = { metadata: { name: NAME }, data: { a: '1' } };
const made = await core.createNamespacedConfigMap({ namespace, body });
assert(made.metadata.uid && made.metadata.creationTimestamp instanceof Date);

const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
const patched = await core.patchNamespacedConfigMap({ name: NAME, namespace, body: { data: { a: null, b: '2' } } }, merge);
assert.deepStrictEqual(patched.data, { b: '2' });

await assert.rejects(core.createNamespacedConfigMap({ namespace, body }), (error) => error.code === 409);
await core.deleteNamespacedConfigMap({ name: NAME, namespace });

const seen = [];
await new Promise((resolve, reject) => {
    const query = { resourceVersion: listed.metadata.resourceVersion, fieldSelector: `metadata.name=${NAME}` };
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const watching = new k8s.Watch(config).watch(
        path,
        query,
        (type) => {
            seen.push(type);
            if (type === 'DELETED') watching.then((controller) => controller.abort()).then(resolve);
        },
        (error) => (seen.includes('DELETED') ? resolve() : reject(error ?? new Error('the watch ended'))),
    );
    setTimeout(() => reject(new Error(`no events but ${seen}`)), 20000).unref();
});
assert.deepStrictEqual(seen, ['ADDED', 'MODIFIED', 'DELETED']);

const collected = [];
const sink = new Writable({
    write(chunk, _, done) {
        collected.push(chunk);
        done();
    },
});
const status = await new Promise((resolve, reject) => {
    new k8s.Exec(config)
        .exec(namespace, 'hello-pod', 'hello-busybox', ['sh', '-c', 'echo out; exit 3'], sink, sink, null, false, resolve)
        .catch(reject);
});
assert.strictEqual(Buffer.concat(collected).toString(), 'out\n');
assert.strictEqual(status.status, 'Failure');
assert.strictEqual(status.reason, 'NonZeroExitCode');

const pods = await core.listNamespacedPod({ namespace, labelSelector: 'app=hostnames' });
const log = await core.readNamespacedPodLog({ name: pods.items[0].metadata.name, namespace });
assert(log.includes('serving'), log);

console.log('all as expected');
process.exit(0);
