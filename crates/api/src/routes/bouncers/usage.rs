//! `/v1/usage-metrics`: what bouncers count. Of all of it only how much they enforce is kept.

use actix_web::{HttpResponse, web};
use futures_util::FutureExt as _;
use ipwarden_core::context::Context;
use ipwarden_core::db::bouncers;
use serde_json::Value;

use super::{Bouncer, Refused};
use crate::input::read;
use crate::routes::now;

/// A bouncer sends a few kilobytes; one with thousands of lists sends more.
const LARGEST: usize = 1 << 20;

pub(crate) async fn usage(
    Bouncer(who): Bouncer,
    context: web::Data<Context>,
    body: web::Payload,
) -> Result<HttpResponse, Refused> {
    let body = read(body, LARGEST).await?;
    let usage: Value = serde_json::from_slice(&body)
        .map_err(|error| Refused::Malformed(format!("the body is no JSON: {error}")))?;
    if !usage.is_object() {
        return Err(Refused::Malformed("the body has to be a JSON object".to_owned()));
    }
    let (applied, at) = (applied(&usage), now());
    let noted = context.db.run(move |conn| {
        async move {
            let at = conn.clock(at).await?;
            bouncers::seen(conn, who.clone(), at).await?;
            match applied {
                Some(applied) => bouncers::applies(conn, &who, applied).await,
                None => Ok(()),
            }
        }
        .boxed()
    });
    if let Err(error) = noted.await {
        // It counts on, and says so again.
        tracing::debug!(%error, "what a bouncer applies was not noted");
    }
    Ok(HttpResponse::Created().finish())
}

/// The sum of the newest `active_decisions`, over all their labels.
fn applied(usage: &Value) -> Option<i64> {
    let components = several(&usage["remediation_components"]);
    let metrics = components.iter().flat_map(|component| several(&component["metrics"]));
    let mut sums = metrics.filter_map(|metric| {
        let items = several(&metric["items"]);
        let active = items.iter().filter(|item| item["name"] == "active_decisions");
        let values: Vec<f64> = active.filter_map(|item| item["value"].as_f64()).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>())
    });
    // The cast of what is no such number is the nearest that is.
    #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
    sums.next_back().map(|sum| sum.max(0.0) as i64)
}

/// An array's elements, or the one that stands there by itself.
fn several(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(elements) => elements.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_bouncer_applies_is_the_sum_of_its_newest_active_decisions() {
        let items = |value: i64| {
            json!([
                { "name": "active_decisions", "value": value, "unit": "ip", "labels": { "origin": "manual" } },
                { "name": "active_decisions", "value": 2, "unit": "ip", "labels": { "origin": "scan" } },
                { "name": "dropped", "value": 99, "unit": "packet" },
            ])
        };
        let array = json!([{ "items": items(1) }, { "items": items(40) }, { "items": [] }]);
        let object = json!({ "items": items(40) });
        for metrics in [array, object] {
            let usage = json!({ "remediation_components": [{ "type": "a", "metrics": metrics }] });
            assert_eq!(applied(&usage), Some(42), "{usage}");
        }
        for nothing in [json!({}), json!({ "remediation_components": null, "log_processors": [] })]
        {
            assert_eq!(applied(&nothing), None);
        }
    }
}
