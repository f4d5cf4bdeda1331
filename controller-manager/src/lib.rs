//! kube-controller-manager: one file or folder per controller.
