//! How a server asks the kernel for memory, and gives it back.

use std::time::Duration;

use crate::sys;

/// How often memory that was freed is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Larger than the pages that the allocator keeps at hand.
const FRESH: usize = 1 << 20;

/// Has this process hold no more memory than it uses. Call it first thing in a server's `main`.
///
/// Two habits of the allocator, and one of the kernel, are changed. It asks for huge pages where it can, and the kernel then backs two
/// megabytes where a few hundred kilobytes are in use: an idle server of ours would keep half as much memory again.
/// And it gives back what was freed only when it is next asked for a fresh page: a server that answered one large
/// request and then rests would keep that request's memory for good. So this asks for one now and then, from a
/// thread of its own. And the kernel maps the program's code in large pieces when any of it runs, and never lets go of
/// them while memory is plentiful: most of what a server has mapped is code that only its start needed. So that is
/// given back once the start is over; what still runs comes back by itself, from the page cache.
pub fn frugal() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        // Kernels without the switch: everything works, in more memory.
        tracing::debug!(%error, "huge pages stay on");
    }
    let give_back = || {
        std::thread::sleep(LOOK);
        if let Err(error) = sys::release_code() {
            tracing::debug!(%error, "the code of the start stays mapped");
        }
        loop {
            std::thread::sleep(LOOK);
            // Never touched, so it costs no memory itself.
            drop(std::hint::black_box(Vec::<u8>::with_capacity(FRESH)));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(give_back) {
        tracing::debug!(%error, "freed memory is given back late");
    }
}
