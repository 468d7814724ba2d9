//! Statuses for people and for scripts, as `wssgate check` prints them. Text in, text out: prints nothing itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::api::route_id::RouteId;
use crate::api::status::RouteStatus;
use crate::content::format::Format;
use crate::content::protocol::Protocol;
use crate::content::rules::Rules;
use crate::policy::{self, Policy, Tunnels};
use crate::snapshot::{RouteState, Snapshot};

/// The columns.
const HEAD: [&str; 5] = ["ROUTE", "CONDITION", "STATUS", "REASON", "MESSAGE"];

/// One line per condition, columns aligned, the route named once; then what judges the messages of routes; ends with a line
/// that sums up.
pub fn table(statuses: &BTreeMap<RouteId, RouteStatus>, snapshot: &Snapshot) -> String {
    let mut rows: Vec<[String; 5]> = vec![HEAD.map(str::to_owned)];
    for (id, status) in statuses {
        let mut name = plain(&id.to_string());
        for condition in status.conditions.iter().flatten() {
            rows.push([
                std::mem::take(&mut name),
                plain(&condition.type_),
                plain(&condition.status),
                plain(&condition.reason),
                plain(&condition.message),
            ]);
        }
    }
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for [route, kind, status, reason, message] in &rows {
        let [a, b, c, d] = widths;
        text.push_str(format!("{route:a$}  {kind:b$}  {status:c$}  {reason:d$}  {message}").trim_end());
        text.push('\n');
    }
    let accepted = crate::compile::status::route::accepted(statuses);
    let messages = messages(snapshot);
    if !messages.is_empty() {
        text.push_str(&format!("\n{messages}"));
    }
    text.push_str(&format!("\n{} routes, {accepted} accepted\n", statuses.len()));
    text
}

/// Which request headers stay here, and what judges the text messages of each route that serves, a line for each direction.
fn messages(snapshot: &Snapshot) -> String {
    let hosts = snapshot.exact.values().chain(snapshot.wildcard.values());
    let routes: BTreeMap<String, &Policy> = hosts
        .flat_map(|host| &host.routes)
        .filter_map(|route| match &route.state {
            RouteState::Serving(policy) => Some((plain(&route.id.to_string()), &**policy)),
            RouteState::Refusing(_) => None,
        })
        .collect();
    let mut text = String::new();
    let withheld = routes.values().map(|policy| &policy.handshake.request_headers);
    if let Some(allows) = withheld.map(|allowed| !allowed.is_empty()).reduce(|one, other| one || other) {
        let names: Vec<String> = policy::withheld().collect();
        let except = if allows { "" } else { "; no route allows any" };
        text.push_str(&format!(
            "request headers withheld from backends unless handshake.requestHeaders.allow names them: {}, and names with \
             another character than letters, digits and -{except}\n",
            names.join(", ")
        ));
    }
    for (route, policy) in routes {
        if !policy.handshake.request_headers.is_empty() {
            let allowed = policy.handshake.request_headers.join(", ");
            text.push_str(&format!(
                "{route}: of the request headers that are withheld these reach backends: {allowed}\n"
            ));
        }
        let content = &policy.content;
        let Tunnels { from_client, from_backend } = policy.tunnels;
        for (who, rules, tunnels) in
            [("clients", &content.from_client, from_client), ("backends", &content.from_backend, from_backend)]
        {
            let by = match rules {
                None => "size and type only".to_owned(),
                Some(rules) => judges(rules),
            };
            let audit = if policy.audits_messages && rules.is_some() { ", in Audit mode" } else { "" };
            text.push_str(&format!("{route}: text messages of {who} are judged by {by}{audit}\n"));
            if let Some(rule) = tunnels {
                let what = if rule.audits || policy.audits_messages { "logged" } else { "refused" };
                let except: Vec<&str> =
                    Protocol::ALL.iter().filter(|one| rule.allowed.contains(**one)).map(|one| one.name()).collect();
                let except = if except.is_empty() { String::new() } else { format!(" but for {}", except.join(", ")) };
                text.push_str(&format!("{route}: tunnels in messages of {who} are {what}{except}\n"));
            }
        }
        if policy.compresses {
            text.push_str(&format!("{route}: messages are compressed with clients that offer permessage-deflate\n"));
        }
    }
    text
}

/// The format and the schemas of a direction.
fn judges(rules: &Rules) -> String {
    let format = match rules.format {
        Format::Json => "JSON",
        Format::JsonRecords => "JSONRecords",
        Format::EngineIo => "EngineIO",
    };
    if rules.rules.is_empty() {
        return format!("format {format}");
    }
    let names: Vec<String> = rules.rules.iter().map(|rule| plain(&rule.name)).collect();
    let others = if rules.unmatched { "others pass" } else { "others are refused" };
    format!("format {format} and schemas {}; {others}", names.join(", "))
}

/// A `List` of routes with their status, in the shape of `kubectl get -o json` less what `check` cannot know.
pub fn json(statuses: &BTreeMap<RouteId, RouteStatus>) -> Value {
    let items: Vec<Value> = statuses
        .iter()
        .map(|(id, status)| {
            json!({
                "apiVersion": format!("{}/{}", crate::api::GROUP, crate::api::VERSION),
                "kind": id.kind.as_str(),
                "metadata": {"namespace": id.namespace, "name": id.name},
                "status": status,
            })
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Names come from files, where nothing has checked them: a terminal must not obey them.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{ConditionReason as Reason, ConditionType as Type};
    use crate::compile::status::condition::{Condition, State};
    use crate::compile::status::route;

    fn statuses() -> BTreeMap<RouteId, RouteStatus> {
        let condition =
            |kind, status, reason, message: &str| Condition { kind, status, reason, message: message.to_owned() };
        let of = |conditions| route::of(&Default::default(), "c", conditions, None, 0);
        let good = of(vec![condition(Type::Accepted, State::True, Reason::Accepted, "the spec is valid")]);
        let bad = of(vec![
            condition(Type::Accepted, State::False, Reason::Invalid, "spec.hostnames: is empty"),
            condition(Type::Ready, State::False, Reason::Invalid, "Accepted: spec.hostnames: is empty"),
        ]);
        [(RouteId::secure_web_socket("shop", "chat"), good), (RouteId::secure_web_socket("shop", "bad\u{1b}[2J"), bad)]
            .into()
    }

    #[test]
    fn the_table_names_each_route_once_and_sums_up() {
        let expected = "\
ROUTE         CONDITION  STATUS  REASON    MESSAGE
shop/bad?[2J  Accepted   False   Invalid   spec.hostnames: is empty
              Ready      False   Invalid   Accepted: spec.hostnames: is empty
shop/chat     Accepted   True    Accepted  the spec is valid

2 routes, 1 accepted
";
        assert_eq!(table(&statuses(), &Snapshot::default()), expected);
    }

    #[test]
    fn the_json_is_a_list_of_routes() {
        let value = json(&statuses());
        assert_eq!(value["kind"], "List");
        assert_eq!(value["items"][1]["metadata"]["name"], "chat");
        assert_eq!(value["items"][1]["status"]["conditions"][0]["type"], "Accepted");
    }
}
