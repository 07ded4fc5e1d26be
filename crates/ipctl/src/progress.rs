//! Progress on standard error, if that is a terminal.
//!
//! What takes long says how far it is. Everything else takes long only when the store does, and then says
//! that it is at work ([`at_work`]) until its first word.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// How long a command may be silent.
const SILENCE: Duration = Duration::from_secs(1);

/// What says that a command is at work.
static AT_WORK: Mutex<Option<ProgressBar>> = Mutex::new(None);
/// Whether data or progress of the command's own has been shown.
static HAS_SPOKEN: AtomicBool = AtomicBool::new(false);

/// Runs a command, and shows that it is at work once it has been silent for a second.
pub(crate) async fn at_work<T>(command: impl Future<Output = T>) -> T {
    let mut command = pin!(command);
    tokio::select! {
        biased;
        outcome = &mut command => return outcome,
        () = tokio::time::sleep(SILENCE) => {}
    }
    {
        // Looked at under the lock: whoever speaks meanwhile finds what to end.
        let mut at_work = AT_WORK.lock();
        if !HAS_SPOKEN.load(Ordering::Relaxed) {
            *at_work = Some(spinning("at work"));
        }
    }
    let outcome = command.await;
    spoken();
    outcome
}

/// Call it before data or a question is shown: the command speaks for itself from then on.
pub(crate) fn spoken() {
    HAS_SPOKEN.store(true, Ordering::Relaxed);
    if let Some(bar) = AT_WORK.lock().take() {
        bar.finish_and_clear();
    }
}

/// Writes a line on standard error, above whatever shows that the command is at work.
pub(crate) fn above(write: impl FnOnce()) {
    let bar = AT_WORK.lock().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Bytes that are read, of so many if anybody knows.
pub(crate) fn of_bytes(total: Option<u64>) -> ProgressBar {
    styled(
        match total {
            Some(_) => "{wide_bar} {percent:>3}%  {msg}  {binary_bytes_per_sec}, {eta} left",
            None => "{spinner} {binary_bytes}  {msg}  {binary_bytes_per_sec}",
        },
        total,
    )
}

/// A download, whose length may become known.
pub(crate) fn of_download() -> ProgressBar {
    styled("{wide_bar} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}", Some(0))
}

/// Things that are done, of so many.
pub(crate) fn of_things(total: u64) -> ProgressBar {
    styled("{wide_bar} {percent:>3}%  {human_pos} of {human_len}  {msg}", Some(total))
}

/// Records that are deleted, nobody knows of how many.
pub(crate) fn of_erased() -> ProgressBar {
    styled("{spinner} {human_pos} records forgotten  {elapsed}", None)
}

/// Something that others do.
pub(crate) fn of_waiting(what: &'static str) -> ProgressBar {
    spoken();
    spinning(what)
}

fn spinning(what: &'static str) -> ProgressBar {
    let bar = drawn("{spinner} {msg}  {elapsed}", None).with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn styled(template: &str, total: Option<u64>) -> ProgressBar {
    spoken();
    drawn(template, total)
}

fn drawn(template: &str, total: Option<u64>) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    bar.with_style(style)
}
