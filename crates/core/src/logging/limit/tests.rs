use tracing::Callsite as _;
use tracing::callsite::DefaultCallsite;
use tracing::metadata::Kind;

use super::*;

const SECOND: u64 = 1_000_000;

/// Two places in the code.
fn places() -> [Identifier; 2] {
    static ONE: DefaultCallsite = DefaultCallsite::new(&META);
    static META: tracing::Metadata<'static> = tracing::metadata! {
        name: "one", target: "test", level: Level::ERROR, fields: &[], callsite: &ONE,
        kind: Kind::EVENT,
    };
    static OTHER: DefaultCallsite = DefaultCallsite::new(&OTHER_META);
    static OTHER_META: tracing::Metadata<'static> = tracing::metadata! {
        name: "other", target: "test", level: Level::ERROR, fields: &[], callsite: &OTHER,
        kind: Kind::EVENT,
    };
    assert_eq!((ONE.metadata().name(), OTHER.metadata().name()), ("one", "other"));
    [META.callsite(), OTHER_META.callsite()]
}

fn told(message: &str) -> Told {
    let mut told = Told::of(Level::ERROR);
    write!(Digest { into: &mut told.digest, digits: false }, "{message}").unwrap();
    told.message = message.to_owned();
    told
}

#[test]
fn one_line_is_said_and_what_follows_is_counted_and_said_after_ten_seconds() {
    let (mut causes, [place, _]) = (Causes::default(), places());
    assert_eq!(causes.judge(place.clone(), told("gone"), 0), Judgement::Say);
    assert_eq!(causes.due(20 * SECOND), (vec![], None), "one line says all there is");
    for n in 0..4_211 {
        let judged = causes.judge(place.clone(), told("gone"), SECOND + n);
        assert_eq!(judged, Judgement::HoldBack { first: n == 0 });
    }
    assert_eq!(causes.due(9 * SECOND), (vec![], Some(10 * SECOND)));
    let held = HeldBack { level: Level::ERROR, message: "gone".to_owned(), lines: 4_211 };
    assert_eq!(causes.due(10 * SECOND), (vec![held], None));
    // That line stands for the next ten seconds.
    let judged = causes.judge(place.clone(), told("gone"), 19 * SECOND);
    assert_eq!(judged, Judgement::HoldBack { first: true });
    assert_eq!(causes.due(20 * SECOND).0[0].lines, 1);
    assert_eq!(causes.due(30 * SECOND), (vec![], None));
    assert_eq!(causes.judge(place, told("gone"), 30 * SECOND), Judgement::Say);
}

#[test]
fn in_any_ten_seconds_of_a_flood_there_is_at_most_one_line() {
    let (mut causes, [place, _]) = (Causes::default(), places());
    let mut said = Vec::new();
    for tick in 0..1_000 {
        let now = tick * SECOND / 10;
        if causes.judge(place.clone(), told("gone"), now) == Judgement::Say {
            said.push(now);
        }
        said.extend(causes.due(now).0.iter().map(|_| now));
    }
    assert_eq!(said.len(), 10, "{said:?}");
    assert!(said.windows(2).all(|pair| pair[1] - pair[0] >= 10 * SECOND), "{said:?}");
}

#[test]
fn another_cause_is_never_taken_for_the_same() {
    let (mut causes, [place, other]) = (Causes::default(), places());
    assert_eq!(causes.judge(place.clone(), told("refused"), 0), Judgement::Say);
    assert_eq!(causes.judge(place.clone(), told("timed out"), 1), Judgement::Say);
    assert_eq!(causes.judge(other, told("refused"), 2), Judgement::Say);
    let judged = causes.judge(place.clone(), told("refused"), 3);
    assert_eq!(judged, Judgement::HoldBack { first: true });
    // But a number is none.
    assert_eq!(causes.judge(place.clone(), told("after 5 ms"), 4), Judgement::Say);
    let judged = causes.judge(place, told("after 17 ms"), 5);
    assert_eq!(judged, Judgement::HoldBack { first: true });
}

#[test]
fn causes_without_end_take_bounded_lines_and_bounded_memory() {
    let (mut causes, [place, _]) = (Causes::default(), places());
    let long = "x".repeat(10_000);
    let mut said = 0;
    for n in 0..100_000 {
        // Letters, as digits make no cause.
        let cause = format!("{n} {}", long.len()).replace(|byte: char| byte.is_ascii_digit(), "")
            + &format!("{n:b}").replace('0', "a").replace('1', "b");
        said += usize::from(causes.judge(place.clone(), told(&cause), n) == Judgement::Say);
    }
    assert_eq!(said, MOST + 1, "the last of them for all others");
    assert_eq!(causes.0.values().map(HashMap::len).sum::<usize>(), MOST + 1);
    let mut message = String::new();
    write!(Short(&mut message), "é{long}").unwrap();
    assert!(message.len() <= LONGEST && message.starts_with('é'));
}

#[test]
fn whatever_is_no_reason_makes_no_cause_and_news_count_by_all_they_say() {
    use tracing_subscriber::layer::SubscriberExt as _;

    let written = Arc::new(Mutex::new(Vec::<u8>::new()));
    let into = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || Into(into.clone()))
        .with_ansi(false)
        .finish()
        .with(Limit { causes: Arc::default(), speaker: None });
    tracing::subscriber::with_default(subscriber, || {
        for reference in ["a", "b", "c"] {
            tracing::error!(reference, error = "disk full", "cannot write");
            tracing::info!(reference, "done");
            tracing::info!("again");
        }
        tracing::error!(reference = "a", error = "read-only", "cannot write");
        for segment in ["7", "8", "7"] {
            tracing::error!(segment, "damaged");
        }
    });
    let written = String::from_utf8(written.lock().clone()).unwrap();
    let count = |text: &str| written.matches(text).count();
    assert_eq!((count("disk full"), count("read-only")), (1, 1), "{written}");
    assert_eq!((count("done"), count("again")), (3, 1), "{written}");
    assert_eq!(count("damaged"), 2, "each segment is a trouble of its own: {written}");
}

struct Into(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Into {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
