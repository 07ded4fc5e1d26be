//! Which windows are due, and why. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::db::touched_hours::TouchedHour;
use crate::detect::{WINDOW, Window};

/// Hours that were missed longer ago are judged only if they hold records, which touched them then.
/// So a clock that was years ahead for a moment costs a month of empty windows, not all of them.
const CAUGHT_UP: TimeDelta = TimeDelta::days(31);

/// A window to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub window: Window,
    /// Why.
    pub reason: Reason,
    /// The touched hours that are settled when this window is judged: the last that they reach and
    /// that is not due anyway.
    pub settles: Vec<TouchedHour>,
}

/// Why a window is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Records were written after it was judged, or before anything was. It makes no row of
    /// `scan_runs`: an import makes no hour a missed one.
    Touched,
    /// Somebody asked.
    Operator,
    /// It ended.
    Schedule,
}

impl Due {
    /// Whether its time has come at `now`. It had when it was put on the agenda, but a clock may be
    /// set back; an operator may look at an hour that still goes on.
    pub(super) fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.reason == Reason::Operator || self.window.end() <= now
    }
}

/// Windows to judge, oldest first, each once.
#[derive(Debug, Default)]
pub(super) struct Agenda(BTreeMap<Window, Due>);

impl Agenda {
    /// The windows that ended since the one that was judged `last`, a month of them at most; without
    /// one, only the last that ended.
    pub(super) fn scheduled(last: Option<Window>, now: DateTime<Utc>) -> Agenda {
        let newest = Window::last_ended(now);
        let oldest = Window::of(newest.start() - CAUGHT_UP);
        let first = last.map_or(newest, |last| last.next().max(oldest));
        let mut agenda = Agenda::default();
        agenda.add_all(first, newest, Reason::Schedule);
        agenda
    }

    /// The hours that `[from, to)` touches.
    pub(super) fn asked(from: DateTime<Utc>, to: DateTime<Utc>) -> Agenda {
        let mut agenda = Agenda::default();
        if from < to {
            let last = Window::of(to - TimeDelta::microseconds(1));
            agenda.add_all(Window::of(from), last, Reason::Operator);
        }
        agenda
    }

    /// Adds the ended hours that were touched, and those that a span of requests reaches from them.
    pub(super) fn touched(
        mut self,
        touched: Vec<TouchedHour>,
        span: TimeDelta,
        now: DateTime<Utc>,
    ) -> Agenda {
        let newest = Window::last_ended(now);
        for row in touched {
            let first = Window::of(row.hour);
            let reached = Window::of(row.hour + WINDOW + span - TimeDelta::microseconds(1));
            let last = reached.min(newest);
            self.add_all(first, last, Reason::Touched);
            // What is due by schedule will be judged whatever happens to this run, so the row need not
            // wait for it, and a killed run has nothing to do twice.
            let reached = self.0.range(first..).take_while(|(window, _)| **window <= last);
            let settling = reached.filter(|(_, due)| due.reason != Reason::Schedule).last();
            let settling = settling.map_or(first, |(window, _)| *window);
            if let Some(due) = self.0.get_mut(&settling) {
                due.settles.push(row);
            }
        }
        self
    }

    fn add_all(&mut self, first: Window, last: Window, reason: Reason) {
        let mut window = first;
        while window <= last {
            let due = self.0.entry(window).or_insert(Due { window, reason, settles: Vec::new() });
            due.reason = due.reason.max(reason);
            window = window.next();
        }
    }
}

impl IntoIterator for Agenda {
    type Item = Due;
    type IntoIter = std::collections::btree_map::IntoValues<Window, Due>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-03-01T{text}Z").parse().expect("a date")
    }

    fn touched(hour: &str) -> TouchedHour {
        TouchedHour { hour: at(hour), node: "a".to_owned(), recorded_at: at("11:59:00") }
    }

    fn shown(agenda: Agenda) -> Vec<String> {
        agenda
            .into_iter()
            .map(|due| {
                let hour = due.window.start().format("%H");
                format!("{hour} {:?} {}", due.reason, due.settles.len())
            })
            .collect()
    }

    #[test]
    fn the_first_run_judges_the_hour_that_ended() {
        assert_eq!(shown(Agenda::scheduled(None, at("12:00:10"))), ["11 Schedule 0"]);
    }

    #[test]
    fn missed_hours_are_due_oldest_first() {
        let last = Some(Window::of(at("06:00:00")));
        let due = shown(Agenda::scheduled(last, at("12:00:00")));
        assert_eq!(
            due,
            ["07 Schedule 0", "08 Schedule 0", "09 Schedule 0", "10 Schedule 0", "11 Schedule 0"]
        );
    }

    #[test]
    fn years_of_missed_hours_are_caught_up_for_a_month() {
        let last = Some(Window::of(at("06:00:00") - TimeDelta::days(5_000)));
        let due = shown(Agenda::scheduled(last, at("12:00:00")));
        assert_eq!((due.len(), due.last().map(String::as_str)), (745, Some("11 Schedule 0")));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_a_window_wait() {
        let due = |reason| Due { window: Window::of(at("11:00:00")), reason, settles: Vec::new() };
        assert!(due(Reason::Schedule).is_due(at("12:00:00")));
        assert!(!due(Reason::Schedule).is_due(at("11:59:59")));
        assert!(!due(Reason::Touched).is_due(at("11:59:59")));
        assert!(due(Reason::Operator).is_due(at("11:59:59")));
    }

    #[test]
    fn nothing_is_due_before_the_hour_has_ended() {
        let last = Some(Window::of(at("11:00:00")));
        assert_eq!(shown(Agenda::scheduled(last, at("12:59:59"))), Vec::<String>::new());
        let ahead = Some(Window::of(at("15:00:00")));
        assert_eq!(shown(Agenda::scheduled(ahead, at("12:59:59"))), Vec::<String>::new());
    }

    #[test]
    fn a_touched_hour_is_judged_again_with_the_one_its_span_reaches() {
        let again = |hour, span| {
            shown(Agenda::default().touched(vec![touched(hour)], span, at("12:30:00")))
        };
        assert_eq!(again("04:00:00", TimeDelta::hours(1)), ["04 Touched 0", "05 Touched 1"]);
        assert_eq!(again("04:00:00", TimeDelta::minutes(5)), ["04 Touched 0", "05 Touched 1"]);
        assert_eq!(
            again("04:00:00", TimeDelta::minutes(61)),
            ["04 Touched 0", "05 Touched 0", "06 Touched 1"]
        );
        assert_eq!(again("11:00:00", TimeDelta::hours(1)), ["11 Touched 1"], "12 has not ended");
    }

    #[test]
    fn a_window_that_is_due_twice_is_judged_once() {
        let last = Some(Window::of(at("09:00:00")));
        let agenda = Agenda::scheduled(last, at("12:00:10")).touched(
            vec![touched("08:00:00"), touched("11:00:00")],
            TimeDelta::hours(1),
            at("12:00:10"),
        );
        assert_eq!(
            shown(agenda),
            ["08 Touched 0", "09 Touched 1", "10 Schedule 0", "11 Schedule 1"]
        );
    }

    #[test]
    fn a_missed_hour_is_settled_by_itself_and_not_by_the_next() {
        let last = Some(Window::of(at("07:00:00")));
        let agenda = Agenda::scheduled(last, at("11:00:10")).touched(
            vec![touched("07:00:00"), touched("08:00:00"), touched("09:00:00")],
            TimeDelta::hours(1),
            at("11:00:10"),
        );
        assert_eq!(
            shown(agenda),
            ["07 Touched 1", "08 Schedule 1", "09 Schedule 1", "10 Schedule 0"]
        );
    }

    #[test]
    fn what_is_asked_for_is_every_hour_that_it_touches() {
        let asked = |from, to| shown(Agenda::asked(at(from), at(to)));
        assert_eq!(asked("09:00:00", "10:00:00"), ["09 Operator 0"]);
        assert_eq!(asked("09:59:59", "10:00:01"), ["09 Operator 0", "10 Operator 0"]);
        assert_eq!(asked("10:00:00", "10:00:00"), Vec::<String>::new());
    }
}
