//! The document for people: one page without scripts, in which everything is that it shows.

use std::fmt::Write as _;

use serde_json::Value;

use crate::html::escape;

/// The style of the page.
pub(super) const STYLE: &str = ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;\
max-width:60rem;margin:2rem auto;padding:0 1.5rem}h1{font-size:1.6rem}h2{font-size:1.1rem;\
margin:2rem 0 .3rem}code,pre{font:13px/1.45 ui-monospace,monospace}pre{overflow:auto;padding:.6rem;\
border:1px solid #8886;border-radius:4px}b{display:inline-block;min-width:4rem}table{border-collapse:\
collapse}td{padding:.1rem .8rem .1rem 0;vertical-align:top}p{margin:.3rem 0}";

/// The body of the page.
pub(super) fn of(document: &Value) -> String {
    let mut html = format!(
        "<h1>ipwarden {}</h1><p>{}</p>\
         <p>For programs: <a href=\"/api/v1/openapi.json\">openapi.json</a>. \
         Sessions: <a href=\"/login\">sign in or out</a>.</p>\n",
        text(&document["info"]["version"]),
        text(&document["info"]["description"]),
    );
    for (path, item) in members(&document["paths"]) {
        for (method, operation) in members(item) {
            show(&mut html, method, path, operation);
        }
    }
    html.push_str("<h1>Bodies</h1>\n");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let json = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _infallible =
            writeln!(html, "<h2 id=\"{0}\">{0}</h2><pre>{1}</pre>", escape(name), escape(&json));
    }
    html
}

fn show(html: &mut String, method: &str, path: &str, operation: &Value) {
    let (method, path) = (method.to_ascii_uppercase(), escape(path));
    let _infallible = write!(
        html,
        "<h2><code><b>{method}</b>{path}</code></h2><p>{} {}</p><table>",
        text(&operation["summary"]),
        text(&operation["description"]),
    );
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let _infallible = write!(
            html,
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            text(&parameter["name"]),
            text(&parameter["in"]),
            text(&parameter["description"]),
        );
    }
    html.push_str("</table>");
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let _infallible = write!(html, "<p>Body: {}</p>", shape(body));
    }
    html.push_str("<p>Answers:");
    for (status, answer) in members(&operation["responses"]) {
        let schemas = members(&answer["content"]).map(|(_, content)| shape(&content["schema"]));
        let _infallible = write!(html, " {status} {}", schemas.collect::<Vec<_>>().join(" "));
    }
    html.push_str("</p>\n");
}

/// What a body is, in a word.
fn shape(schema: &Value) -> String {
    let target = |schema: &Value| {
        let name = schema["$ref"].as_str()?.rsplit('/').next()?;
        Some(format!("<a href=\"#{0}\">{0}</a>", escape(name)))
    };
    let row = &schema["properties"]["items"]["items"];
    match (target(schema), target(row)) {
        (Some(name), _) => name,
        (None, Some(row)) => format!("a page of {row}"),
        (None, None) => text(&schema["type"]),
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}
