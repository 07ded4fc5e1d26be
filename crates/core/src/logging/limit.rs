//! At most one line of a cause in ten seconds, so that no trouble, and nobody who makes some, fills a disk
//! with our own log.
//!
//! The first line of a cause is written at once. Those that follow within ten seconds are counted, and
//! a line with their number and reason then stands for them and begins the next ten seconds. A cause is a
//! place in the code with what it says of the reason: the message and the fields of [`REASONS`], digits
//! apart, and those of [`SUBJECTS`]; or of news ([`Level::INFO`]) all fields as they are. So an error that
//! is new is never taken for one that was written. Of one place [`MOST`] causes are told apart; any more
//! count as one.
//!
//! Not limited are debug and trace, which only somebody who wants them all asks for. What was counted and
//! not yet said when the process ends is not said.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use ipwarden_engine::clock::Moment;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// How long one line stands for its cause.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// How many causes of one place in the code are told apart at a time.
const MOST: usize = 16;
/// The fields that say why. Others (a reference, a position) say to what it happened.
const REASONS: [&str; 7] = ["message", "error", "cause", "why", "what", "file", "job"];
/// The fields that say to which of few it happened, each a trouble of its own: with their digits.
const SUBJECTS: [&str; 2] = ["segment", "path"];
/// What is remembered of a message and its reasons, in bytes.
const LONGEST: usize = 300;
/// The target of the lines that say how many were held back; they are not limited themselves.
const TARGET: &str = "ipwarden_core::logging::held_back";

/// Holds back what was said less than ten seconds ago.
pub(super) struct Limit {
    causes: Arc<Mutex<Causes>>,
    /// Says how many were held back.
    speaker: Option<Thread>,
}

impl Limit {
    /// A limit, and the thread that says how many lines it held back.
    pub(super) fn start() -> Limit {
        let causes = Arc::new(Mutex::new(Causes::default()));
        let speaker = std::thread::Builder::new().name("log".to_owned()).spawn({
            let causes = causes.clone();
            move || speak(&causes)
        });
        Limit { causes, speaker: speaker.ok().map(|speaker| speaker.thread().clone()) }
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let level = *metadata.level();
        if level > Level::INFO || metadata.target() == TARGET {
            return true;
        }
        let mut told = Told::of(level);
        event.record(&mut told);
        let place = metadata.callsite();
        match self.causes.lock().judge(place, told, Moment::now().steady) {
            Judgement::Say => true,
            Judgement::HoldBack { first } => {
                if let Some(speaker) = self.speaker.as_ref().filter(|_| first) {
                    speaker.unpark();
                }
                false
            }
        }
    }
}

/// Waits until something was held back for long enough, and says so.
fn speak(causes: &Mutex<Causes>) {
    loop {
        let now = Moment::now().steady;
        let (due, next) = causes.lock().due(now);
        for HeldBack { level, message, lines } in due {
            let seconds = WINDOW.as_secs();
            match level {
                Level::ERROR => {
                    tracing::error!(target: TARGET, "{message}: {lines} more in {seconds} s");
                }
                Level::WARN => {
                    tracing::warn!(target: TARGET, "{message}: {lines} more in {seconds} s");
                }
                _ => tracing::info!(target: TARGET, "{message}: {lines} more in {seconds} s"),
            }
        }
        match next {
            Some(next) => {
                std::thread::park_timeout(Duration::from_micros(next.saturating_sub(now)));
            }
            None => std::thread::park(),
        }
    }
}

/// What was said of late, by place and by cause.
#[derive(Default)]
struct Causes(HashMap<Identifier, HashMap<u64, Cause>>);

/// A cause that has had its line.
struct Cause {
    level: Level,
    message: String,
    /// Until then its line stands, on the steady clock in microseconds.
    until: u64,
    held: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Say,
    /// `first` of those that the last line stands for.
    HoldBack {
        first: bool,
    },
}

/// So many lines were held back.
#[derive(Debug, PartialEq, Eq)]
struct HeldBack {
    level: Level,
    message: String,
    lines: u64,
}

impl Causes {
    /// Whether a line is to be said. Times are of the steady clock, in microseconds.
    fn judge(&mut self, place: Identifier, told: Told, now: u64) -> Judgement {
        let causes = self.0.entry(place).or_default();
        // One with lines to tell of ends when that is done.
        causes.retain(|_, cause| now < cause.until || cause.held > 0);
        let digest = told.digest.finish();
        let which = match causes.contains_key(&digest) || causes.len() < MOST {
            true => digest,
            false => 0,
        };
        match causes.get_mut(&which) {
            Some(cause) => {
                cause.held += 1;
                Judgement::HoldBack { first: cause.held == 1 }
            }
            None => {
                let Told { level, message, .. } = told;
                let until = now + micros(WINDOW);
                causes.insert(which, Cause { level, message, until, held: 0 });
                Judgement::Say
            }
        }
    }

    /// What there is to say now of lines that were held back, and when there is more.
    fn due(&mut self, now: u64) -> (Vec<HeldBack>, Option<u64>) {
        let mut due = Vec::new();
        let mut next: Option<u64> = None;
        for cause in self.0.values_mut().flat_map(HashMap::values_mut) {
            if cause.held == 0 {
                continue;
            }
            if cause.until <= now {
                due.push(HeldBack {
                    level: cause.level,
                    message: cause.message.clone(),
                    lines: std::mem::take(&mut cause.held),
                });
                cause.until = now + micros(WINDOW);
            } else {
                next = Some(next.map_or(cause.until, |next| next.min(cause.until)));
            }
        }
        (due, next)
    }
}

/// What an event says, as far as that makes its cause.
struct Told {
    level: Level,
    message: String,
    digest: DefaultHasher,
}

impl Told {
    fn of(level: Level) -> Told {
        Told { level, message: String::new(), digest: DefaultHasher::new() }
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let digits = self.level > Level::WARN || SUBJECTS.contains(&field.name());
        if !digits && !REASONS.contains(&field.name()) {
            return;
        }
        self.digest.write(field.name().as_bytes());
        // Writing into these two cannot fail.
        let _infallible = write!(Digest { into: &mut self.digest, digits }, "{value:?}");
        // Fields follow their message, and with it say which cause it is.
        let _infallible = match field.name() {
            "message" => write!(Short(&mut self.message), "{value:?}"),
            name => write!(Short(&mut self.message), " {name}={value:?}"),
        };
    }
}

/// Digests a text, with its digits or without: times, ports and numbers make no other cause.
struct Digest<'a> {
    into: &'a mut DefaultHasher,
    digits: bool,
}

impl fmt::Write for Digest<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(|byte| self.digits || !byte.is_ascii_digit()) {
            self.into.write_u8(byte);
        }
        Ok(())
    }
}

/// Keeps the beginning of a text.
struct Short<'a>(&'a mut String);

impl fmt::Write for Short<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LONGEST.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Ok(())
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
