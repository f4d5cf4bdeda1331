//! How a server asks the kernel for memory, and gives it back.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::sys;

/// How often memory that was freed is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Processor time between two looks from which on the process is at work, and below which it rests.
const WORK: Duration = Duration::from_millis(400);
const REST: Duration = Duration::from_millis(100);

/// Larger than the pages that the allocator keeps at hand.
const FRESH: usize = 1 << 20;

/// Has this process hold no more memory than it uses. Call it first thing in a server's `main`.
///
/// Two habits of the allocator, and one of the kernel, are changed. It asks for huge pages where it can, and the kernel then backs two
/// megabytes where a few hundred kilobytes are in use: an idle server of ours would keep half as much memory again.
/// And it gives back what was freed only when it is next asked for a fresh page: a server that answered one large
/// request and then rests would keep that request's memory for good. So this asks for one now and then, from a
/// thread of its own. And the kernel maps the program's code in large pieces when any of it runs, and never lets go of
/// them while memory is plentiful: most of what a server has mapped is code that only its start needed, or a load that
/// is over. So that is given back once it rests; what still runs comes back by itself, from the page cache.
pub fn frugal() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        // Kernels without the switch: everything works, in more memory.
        tracing::debug!(%error, "huge pages stay on");
    }
    let give_back = || {
        std::thread::sleep(LOOK);
        // The start is work that is over by then, however busy the server is.
        let mut mapped = Mapped { at_work: true, used: processor_time() };
        loop {
            if mapped.rests(processor_time())
                && let Err(error) = sys::release_code()
            {
                tracing::debug!(%error, "code that does not run stays mapped");
            }
            // Never touched, so it costs no memory itself.
            drop(std::hint::black_box(Vec::<u8>::with_capacity(FRESH)));
            std::thread::sleep(LOOK);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(give_back) {
        tracing::debug!(%error, "freed memory is given back late");
    }
}

/// Processor time of this process so far; none where the kernel does not say.
fn processor_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let times = [usage.user_time(), usage.system_time()];
    times.iter().map(|time| Duration::from_micros(time.num_microseconds().try_into().unwrap_or_default())).sum()
}

/// Whether there is code mapped that nobody needs any more.
#[derive(Debug)]
struct Mapped {
    /// There was work since code was last given back.
    at_work: bool,
    /// Processor time at the last look.
    used: Duration,
}

impl Mapped {
    /// Takes the processor time used so far; true when work is over, once after each.
    fn rests(&mut self, used: Duration) -> bool {
        let lately = used.saturating_sub(std::mem::replace(&mut self.used, used));
        self.at_work |= lately >= WORK;
        let over = self.at_work && lately < REST;
        self.at_work &= !over;
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_given_back_once_after_each_time_of_work() {
        let mut mapped = Mapped { at_work: true, used: Duration::ZERO };
        let mut used = 0;
        let looks =
            [(900, false), (150, false), (10, true), (10, false), (150, false), (10, false), (500, false), (0, true)];
        for (at, (spent, over)) in looks.into_iter().enumerate() {
            used += spent;
            assert_eq!(mapped.rests(Duration::from_millis(used)), over, "look {at}");
        }
    }

    #[test]
    fn time_that_does_not_grow_is_rest() {
        let mut mapped = Mapped { at_work: true, used: Duration::from_secs(1) };
        assert!(mapped.rests(Duration::ZERO));
        assert!(processor_time() > Duration::ZERO);
    }
}
