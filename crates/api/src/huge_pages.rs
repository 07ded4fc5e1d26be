//! Huge pages, once there is something large.
//!
//! The allocator asks for pages of 2 MB, and each thread begins in some of its own: an idle service would
//! hold five times what it uses. For large lists and many clients they are worth it: look-ups then cost
//! a tenth less. So the process does without them until it has grown, or is about to: lists that are read from
//! a long copy are there a fifth sooner with them.
//!
//! On Linux only, where `prctl(2)` has `PR_SET_THP_DISABLE`; elsewhere nothing is changed.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What a small service stays below, in bytes of resident memory.
const SMALL: u64 = 64_000_000;

/// A copy of the lists of so many bytes makes a process large: the guard's lists and those that the next
/// change is applied to take some eight times as much.
const LONG_COPY: u64 = SMALL / 8;

/// How often that is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// Does without huge pages from now on: to be called before anything is allocated that matters.
pub fn avoid() {
    allow(false);
}

/// Allows huge pages if a long copy of the lists is about to be read.
pub(crate) fn allow_for(copy: &Path) {
    if copy.metadata().is_ok_and(|copy| copy.len() >= LONG_COPY) {
        allow(true);
    }
}

/// Allows huge pages when the process is no longer small, then returns.
pub(crate) async fn watch(stop: CancellationToken) {
    allow_beyond(SMALL, &stop).await;
}

async fn allow_beyond(bytes: u64, stop: &CancellationToken) {
    while resident_bytes().is_some_and(|resident| resident < bytes) {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    allow(true);
}

/// Memory is all that is at stake: a kernel that refuses keeps its own rule.
fn allow(allowed: bool) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(!allowed) {
        tracing::debug!(%error, allowed, "huge pages stay as they are");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = allowed;
}

/// `None` where nobody tells.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn are_allowed() -> bool {
        !rustix::thread::transparent_huge_pages_are_disabled().expect("prctl(2) tells")
    }

    #[tokio::test]
    async fn a_process_has_huge_pages_once_it_is_large_or_about_to_be() {
        avoid();
        assert!(!are_allowed());
        let small = CancellationToken::new();
        small.cancel();
        allow_beyond(u64::MAX, &small).await;
        assert!(!are_allowed());
        allow_beyond(1_000, &CancellationToken::new()).await;
        assert!(are_allowed());

        avoid();
        let copy = tempfile::NamedTempFile::new().expect("a temporary file");
        for (bytes, allowed) in [(0, false), (LONG_COPY - 1, false), (LONG_COPY, true)] {
            copy.as_file().set_len(bytes).expect("a sparse file takes no room");
            allow_for(copy.path());
            assert_eq!(are_allowed(), allowed, "before a copy of {bytes} bytes");
        }
    }
}
