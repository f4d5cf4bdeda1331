//! The keelson command: PKI, up and down, local nodes, images, manifests.
