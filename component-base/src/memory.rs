//! How a server asks the kernel for memory.

/// Has this process and those it starts use pages of the ordinary size only.
///
/// The allocator asks for huge pages where it can, and the kernel then backs two megabytes where a few hundred
/// kilobytes are in use: an idle server of ours would keep half as much memory again. Call it first thing in
/// `main`, before much is allocated. Where the kernel has no such switch everything stays as it is.
pub fn small_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!(%error, "huge pages stay on");
    }
}
