//! Kubeconfig, transport, informers, work queue, events, leader election.
