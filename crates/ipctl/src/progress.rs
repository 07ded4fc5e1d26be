//! Progress on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
    let bar = styled("{spinner} {msg}  {elapsed}", None).with_message(what);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

fn styled(template: &str, total: Option<u64>) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is well formed");
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    bar.with_style(style)
}
