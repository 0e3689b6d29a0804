//! A fleet of any size that looks like a real one: the same customers each time, by number.

use std::fs;
use std::io;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value, json};

/// What the customers of a generated fleet have in common. An account holds 500 workers, or as many as Cloudflare
/// agreed to; so most are in a dispatch namespace, where workers have no hosts and no clock of their own. Those that pay
/// for a host of their own are in the other account.
const FLEET: &str = "name: generated
accounts:
  default:
    id: { env: CLOUDFLARE_ACCOUNT_ID }
    token: { secret: CLOUDFLARE_API_TOKEN }
    dispatchNamespace: generated
    limits: { databases: 10000000 }
    apiLimit: { requests: 1000000, seconds: 1, headroom: 0 }
  hosts:
    id: { env: CLOUDFLARE_HOSTS_ACCOUNT_ID }
    token: { secret: CLOUDFLARE_API_TOKEN }
    limits: { workers: 10000000, crons: 10000000, databases: 10000000, customDomainsPerZone: 10000000, routesPerZone: 10000000 }
    apiLimit: { requests: 1000000, seconds: 1, headroom: 0 }
packs:
  consent: { path: templates/consent }
defaults:
  compatibilityDate: 2026-06-01
  logLevel: info
";

/// The secrets that generated specs refer to.
#[allow(dead_code, reason = "the generator itself has no use for them, who deploys its fleets has")]
pub const SECRETS: [&str; 4] =
    ["TURSO_AUTH_TOKEN", "META_PIXEL_ACCESS_TOKEN", "GOOGLE_ANALYTICS_API_SECRET", "WEBHOOK_SIGNING_KEY"];

/// How many mistakes there are to make.
const MISTAKES: usize = 8;

/// The text of a spec with one of the mistakes that people make.
fn mistaken(mut spec: Value, mistake: usize) -> Result<String, serde_yaml::Error> {
    let fields = spec.as_object_mut().expect("a spec is a map");
    let destination = |kind: &str, settings: Value| json!([{"name": "Shop", "type": kind, "settings": settings}]);
    let (key, value) = match mistake {
        0 => ("trustedOrigin", fields.remove("trustedOrigins").unwrap_or_default()),
        1 => ("trustedOrigins", json!(["https://shop.example/checkout"])),
        2 => ("logLevel", json!("verbose")),
        3 => ("secrets", json!({"WEBHOOK_SIGNING_KEY": "whsec_0123456789"})),
        4 => ("destinations", destination("facebook-pixel", json!({"pixelId": "123456789012345"}))),
        _ => ("destinations", destination("hotjar", json!({"siteId": 3_456_789}))),
    };
    if mistake < MISTAKES - 2 {
        fields.insert(key.to_owned(), value);
    }
    let text = serde_yaml::to_string(&spec)?;
    Ok(match mistake {
        6 => text + "name: The same key once more\n",
        7 => text + "compatibilityDate: \"2026-06-01\n",
        _ => text,
    })
}

/// One of `of` numbers for a customer, evenly spread; each `what` gives a draw of its own.
fn draw(number: usize, what: u64, of: usize) -> usize {
    // The finaliser of SplitMix64.
    let mut bits = (number as u64).wrapping_add(what.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(1);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) % of as u64) as usize
}

/// Whether something holds for so many customers of a hundred.
fn chance(number: usize, what: u64, percent: usize) -> bool {
    draw(number, what, 100) < percent
}

/// The customer of a number.
pub fn customer(number: usize) -> Value {
    const COLOURS: [&str; 12] =
        ["Amber", "Blue", "Copper", "Dusty", "Green", "Indigo", "Ivory", "Olive", "Pearl", "Red", "Silver", "Violet"];
    const TRADES: [&str; 12] = [
        "Books",
        "Bikes",
        "Ceramics",
        "Coffee",
        "Flowers",
        "Furniture",
        "Games",
        "Gardens",
        "Jewellery",
        "Optics",
        "Shoes",
        "Teas",
    ];
    let id = id(number);
    let own_host = chance(number, 1, 4);
    let staging = chance(number, 2, 20);
    let language = ["en", "de", "fr", "es"][draw(number, 3, 4)];
    let mut spec = Map::new();
    let mut put = |key: &str, value: Value| {
        spec.insert(key.to_owned(), value);
    };
    put("id", json!(id));
    put("name", json!(format!("{} {} {number}", COLOURS[draw(number, 4, 12)], TRADES[draw(number, 5, 12)])));
    let tier = if own_host { "gold" } else { ["bronze", "bronze", "silver"][draw(number, 6, 3)] };
    put("labels", json!({"tier": tier, "region": (["eu", "us", "apac", "latam"][draw(number, 7, 4)])}));
    let mut origins = vec![format!("https://{id}.example")];
    if chance(number, 8, 60) {
        origins.push(format!("https://www.{id}.example"));
    }
    put("trustedOrigins", json!(origins));
    if own_host {
        put("account", json!("hosts"));
        put("domains", json!([format!("consent.{id}.example")]));
        if chance(number, 9, 30) {
            put("crons", json!([format!("{} */6 * * *", draw(number, 10, 60))]));
        }
    }
    let database = |number: usize, suffix: &str| match draw(number, 11, 20) {
        0..=11 => json!({
            "type": "turso",
            "url": format!("libsql://{id}{suffix}.turso.io"),
            "token": {"secret": "TURSO_AUTH_TOKEN"},
        }),
        12..=14 => json!({
            "type": "d1",
            "name": format!("{id}{suffix}"),
            "id": format!("00000000-0000-4000-{}-{number:012x}", if suffix.is_empty() { "8000" } else { "9000" }),
        }),
        _ => json!({"type": "none"}),
    };
    put("database", database(number, ""));
    put("destinations", destinations(number));
    match draw(number, 12, 4) {
        0 => put("vars", json!({"SHOP_LANGUAGE": language})),
        1 => put(
            "vars",
            json!({"SHOP_LANGUAGE": language, "FEATURES": {"newsletter": true, "wishlist": false, "pageSize": 24}}),
        ),
        _ => {}
    }
    if chance(number, 13, 10) {
        put("secrets", json!({"WEBHOOK_SIGNING_KEY": {"secret": "WEBHOOK_SIGNING_KEY"}}));
    }
    if chance(number, 14, 5) {
        put("observability", json!({"enabled": true, "sampling": 0.25}));
    }
    if staging {
        let mut layer = json!({"logLevel": "debug", "database": database(number, "-staging")});
        if own_host {
            layer["domains"] = json!([format!("consent-staging.{id}.example")]);
        }
        put("environments", json!({"production": {}, "staging": layer}));
    }
    Value::Object(spec)
}

/// From 1 to 6 destinations, no two of one type.
fn destinations(number: usize) -> Value {
    let n = number;
    // One after the other in a circle, from where the customer's draw falls.
    let all: [(&str, &str, Value); 12] = [
        (
            "Web analytics",
            "google-analytics",
            json!({"measurementId": format!("G-{n:08}A"), "apiSecret": {"secret": "GOOGLE_ANALYTICS_API_SECRET"}}),
        ),
        (
            "Meta Pixel of the shop",
            "meta-pixel",
            json!({"pixelId": format!("{:015}", 100_000 + n), "accessToken": {"secret": "META_PIXEL_ACCESS_TOKEN"}}),
        ),
        ("Product analytics", "posthog", json!({"apiKey": format!("phc_{n:030}"), "region": "eu"})),
        ("Heatmaps", "hotjar", json!({"siteId": (1_000_000 + n).to_string()})),
        ("Tag manager", "google-tag-manager", json!({"id": format!("GTM-{n:07}")})),
        ("TikTok", "tiktok-pixel", json!({"pixelId": format!("C{n:019}")})),
        ("Plausible", "plausible-analytics", json!({"domain": format!("{}.example", id(n))})),
        ("LinkedIn", "linkedin-insights", json!({"id": (1_000_000 + n).to_string()})),
        (
            "Matomo",
            "matomo-analytics",
            json!({"siteId": (1 + n).to_string(), "matomoUrl": format!("https://matomo.{}.example/", id(n)), "disableCookies": true}),
        ),
        ("Clarity", "microsoft-clarity", json!({"id": format!("clarity{n}")})),
        ("Support chat", "crisp", json!({"websiteId": format!("00000000-0000-4000-8000-{n:012x}"), "locale": "en"})),
        ("Pinned to the console", "console", json!({"logLevel": "warn"})),
    ];
    let (first, count) = (draw(n, 20, all.len()), 1 + draw(n, 21, 6));
    let chosen = all.iter().cycle().skip(first).take(count).enumerate().map(|(at, (name, kind, settings))| {
        let mut destination = json!({"name": name, "type": kind, "settings": settings});
        let what = 30 + at as u64;
        match draw(n, what, 12) {
            0 => destination["environments"] = json!(["production"]),
            1 => destination["requiredConsent"] = json!(["measurement", "experience"]),
            // Never the first one, so that each customer has a destination in production.
            2 if at > 0 => destination["enabled"] = json!(false),
            _ => {}
        }
        destination
    });
    chosen.collect()
}

/// The id of a number.
pub fn id(number: usize) -> String {
    format!("shop-{number:07}")
}

/// Whether a customer is among those with a mistake, if so many of a hundred are.
pub fn is_bad(number: usize, percent: f64) -> bool {
    (draw(number, 50, 1_000_000) as f64) < percent * 10_000.0
}

/// The text of a customer's spec.
pub fn spec(number: usize, bad: bool) -> io::Result<String> {
    let customer = customer(number);
    if bad { mistaken(customer, draw(number, 51, MISTAKES)) } else { serde_yaml::to_string(&customer) }
        .map_err(io::Error::other)
}

/// Writes fleet.yaml and so many customers into a folder; the pack has to be there. Of a hundred, so many get a mistake.
pub fn write(folder: &Path, customers: usize, bad: f64) -> io::Result<()> {
    fs::create_dir_all(folder.join("customers"))?;
    fs::write(folder.join("fleet.yaml"), FLEET)?;
    (0..customers).into_par_iter().try_for_each(|number| {
        fs::write(folder.join(format!("customers/{}.yaml", id(number))), spec(number, is_bad(number, bad))?)
    })
}
