//! The names that dashboards and alerts hold on to.

use crate::common::{Bed, Launch, PATIENCE, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_keep_their_names_their_kinds_and_their_labels() {
    let bed = Bed::embedded(Launch::default()).await;
    bed.first().get("192.0.2.1", "/").await;
    // What the store knows of the scan is asked for after the start.
    let (text, _) = eventually(PATIENCE, "every part is known", async || {
        let (_, text) = bed.first().open("/metrics").await;
        text.contains("part=\"scan\"").then_some(text)
    })
    .await;
    let names = text.lines().filter_map(|line| match line.strip_prefix("# TYPE ") {
        Some(kind) => Some(kind),
        None if line.starts_with('#') => None,
        None => line.rsplit_once(' ').map(|(series, _)| series).filter(|name| name.contains('{')),
    });
    // Series of one name come in any order.
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    insta::assert_snapshot!("metrics", names.join("\n"));
}
