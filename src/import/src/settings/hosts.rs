//! Domains, routes and workers.dev as specs have them. Knows one worker at a time.

use serde_json::{Value, json};

use flotilla_model::names;
use flotilla_spec::yaml::Node;

use super::super::wrangler::{entries, items, text};
use super::Mapping;

/// The number of digits of a zone's id.
const ZONE_ID: usize = 32;

impl Mapping<'_, '_> {
    /// Maps domains, routes and workers.dev as `wrangler deploy` would set them.
    pub(super) fn hosts(&mut self) {
        let config = self.config;
        // `routes` comes before `route`, wherever the two stand.
        let single;
        let (all, has_routes) = match config.get("routes") {
            Some(node) => (items(Some(node)), true),
            None => {
                single = config.get("route").cloned();
                (single.as_slice(), single.is_some())
            }
        };
        let (mut domains, mut routes) = (Vec::new(), Vec::new());
        for item in all {
            self.host(item, &mut domains, &mut routes);
        }
        let dev = config.get("workers_dev").map(Node::to_value);
        let is_dev = dev.as_ref().and_then(Value::as_bool).unwrap_or(!has_routes || all.is_empty());
        if !is_dev {
            self.set("workersDev", false.into());
        }
        self.set_list("domains", &domains);
        self.set_list("routes", &routes);
    }

    fn host(&mut self, item: &Node, domains: &mut Vec<String>, routes: &mut Vec<Value>) {
        let place = self.at(item);
        let pattern = text(item).or_else(|| text(item.get("pattern")?));
        let Some(pattern) = pattern else {
            self.lost(place, "routes", "a route without a pattern can't be mapped".to_owned(), "write its pattern");
            return;
        };
        let pattern = match pattern.split_once("://") {
            Some(("https" | "http", rest)) => {
                let message = format!("`{pattern}` is mapped to `{rest}`: routes of a spec match http and https");
                let help = "delete the route with the scheme at Cloudflare once flotilla has deployed the other one";
                self.findings.note(place.clone(), message, help);
                rest
            }
            _ => pattern,
        };
        let known = ["pattern", "custom_domain", "zone_id", "zone_name", "enabled", "previews_enabled"];
        for (name, span, _) in entries(Some(item)) {
            if !known.contains(&name.as_str()) || name == "enabled" || name == "previews_enabled" {
                let place = self.config.document.place(*span);
                self.findings.left_out(
                    place,
                    format!("`{name}` of a route has no counterpart in a spec"),
                    "set it at Cloudflare",
                );
            }
        }
        let is_domain = item.get("custom_domain").is_some_and(|node| node.to_value() == true);
        let (host, path) = pattern.split_once('/').map_or((pattern, None), |(host, path)| (host, Some(path)));
        if is_domain && !host.contains('*') && matches!(path, None | Some("" | "*")) {
            let host = names::same_host(host).into_owned();
            if let Err((wrong, help)) = names::domain(&host) {
                self.lost(place, "routes", format!("the domain {wrong}"), help);
                return;
            }
            if path.is_some() {
                let message = format!(
                    "`{pattern}` with `custom_domain = true` is rejected by wrangler: a custom domain is a bare host name"
                );
                self.findings.note(
                    place,
                    message,
                    format!("it is mapped to the domain `{host}`, which covers all paths"),
                );
            }
            if !domains.contains(&host) {
                domains.push(host);
            }
            return;
        }
        let bare = host.trim_start_matches("*.").trim_start_matches('*');
        let id = item.get("zone_id").and_then(text).or_else(|| self.config.text("zone_id"));
        let named = item.get("zone_name").and_then(text);
        let live = id.and_then(|id| self.zones.get(id)).map(String::as_str);
        let zone = named.or(live).unwrap_or_else(|| names::zone_of(bare)).to_owned();
        let written = match path {
            None if is_domain => format!("{host}/*"),
            _ => pattern.to_owned(),
        };
        if let Err((wrong, help)) = names::zone(&zone).and_then(|()| names::route(&written, &zone)) {
            self.lost(place, "routes", wrong, help);
            return;
        }
        if is_domain {
            let message = format!("`{pattern}` can't be a custom domain: those have neither wildcards nor paths");
            let help = format!(
                "it is mapped to a route of the zone `{zone}`; create a proxied DNS record for `{host}`, because routes don't create one"
            );
            self.findings.note(place, message, help);
        } else if named.is_none() && live.is_none() && id.is_some() {
            let message = format!("the zone of `{pattern}` is given by its id");
            let help = format!("specs name zones, too: `{zone}` was derived from the host; check that it is correct");
            self.findings.note(place, message, help);
        }
        let mut route = json!({"pattern": written, "zone": zone});
        if let Some(id) =
            id.filter(|id| id.len() == ZONE_ID && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        {
            route["zoneId"] = id.into();
        }
        routes.push(route);
    }
}
