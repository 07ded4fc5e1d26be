//! The dashboard and the alerts ask for metrics that there are.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::common::{Bed, Launch};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(path);
    std::fs::read_to_string(path).unwrap()
}

/// The metrics of an expression, each with the labels that it selects by.
fn metrics(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("ipwarden_") {
        rest = &rest[at..];
        let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let selector = after.strip_prefix('{').and_then(|inner| inner.split('}').next());
        let labels = selector.unwrap_or_default().split(',').filter_map(|part| {
            let name = part.split(['=', '!']).next().map(str::trim);
            name.filter(|name| !name.is_empty())
        });
        found.push((name, labels.collect()));
        rest = after;
    }
    found
}

/// Every text of an `expr`, or of the query of a variable.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if ["expr", "query"].contains(&name.as_str()) => {
                        found.push(text.clone());
                    }
                    value => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// What `/metrics` shows: names, with the labels of each.
async fn shown() -> BTreeMap<String, BTreeSet<String>> {
    let bed = Bed::embedded(Launch::default()).await;
    let (_, text) = bed.first().open("/metrics").await;
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|one| one.split_once('='));
        let known = shown.entry(name.to_owned()).or_default();
        known.extend(labels.map(|(label, _)| label.to_owned()));
    }
    shown
}

fn check(expression: &str, shown: &BTreeMap<String, BTreeSet<String>>) {
    for (name, labels) in metrics(expression) {
        let known = shown.get(name).unwrap_or_else(|| panic!("no metric {name}: {expression}"));
        // Prometheus adds these two to everything.
        let strange = labels
            .iter()
            .find(|label| !["job", "instance"].contains(label) && !known.contains(**label));
        assert_eq!(strange, None, "{name} has no such label: {expression}");
    }
    let (_, by) = expression.split_once("by (").unwrap_or_default();
    for label in by.split(')').next().unwrap_or_default().split(',').map(str::trim) {
        let is_known = ["", "job", "instance"].contains(&label)
            || metrics(expression).iter().any(|(name, _)| shown[*name].contains(label));
        assert!(is_known, "nothing has the label {label}: {expression}");
    }
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() {
    let shown = shown().await;
    let dashboard: Value = serde_json::from_str(&file("grafana/ipwarden.json")).unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard, &mut asked);
    let rules = file("prometheus/ipwarden.rules.yml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let alerts: Vec<String> = alerts.map(str::to_owned).collect();
    assert_eq!(alerts.len(), rules.matches("- alert: ").count(), "one line each");
    assert!(asked.len() >= 20 && alerts.len() >= 5, "{} and {}", asked.len(), alerts.len());
    for expression in asked.iter().chain(&alerts) {
        check(expression, &shown);
    }
    let watched: BTreeSet<&str> =
        asked.iter().flat_map(|expression| metrics(expression)).map(|(name, _)| name).collect();
    for important in ["ipwarden_requests_total", "ipwarden_degraded", "ipwarden_records_lost_total"]
    {
        assert!(watched.contains(important), "{important}");
    }
}

#[test]
fn metrics_and_labels_are_found_in_expressions() {
    let found =
        metrics(r#"sum(rate(ipwarden_a_total{job=~"$job",verdict!="x"}[5m])) / ipwarden_b"#);
    assert_eq!(found, [("ipwarden_a_total", vec!["job", "verdict"]), ("ipwarden_b", vec![])]);
}
