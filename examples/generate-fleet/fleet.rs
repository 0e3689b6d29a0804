//! A fleet of any size that looks like a real one: the same customers each time, by number.

use std::fs;
use std::io;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Value, json};

/// What the customers of a generated fleet have in common: one account with a dispatch namespace, as 500 workers
/// are the most that an account holds otherwise.
const FLEET: &str = "name: generated
accounts:
  default:
    id: { env: CLOUDFLARE_ACCOUNT_ID }
    token: { secret: CLOUDFLARE_API_TOKEN }
    dispatchNamespace: generated
    apiLimit: { requests: 1000000, seconds: 1, headroom: 0 }
packs:
  consent: { path: templates/consent }
defaults:
  compatibilityDate: 2026-06-01
  logLevel: info
";

/// The customer of a number.
pub fn customer(number: usize) -> Value {
    let id = id(number);
    let mut destinations = vec![
        json!({
            "name": format!("Meta Pixel of shop {number}"),
            "type": "meta-pixel",
            "settings": {"pixelId": format!("{:015}", 100_000 + number), "accessToken": {"secret": "META_PIXEL_ACCESS_TOKEN"}},
            "environments": ["production"],
        }),
        json!({
            "name": "Web analytics",
            "type": "google-analytics",
            "settings": {"measurementId": format!("G-{number:08}A"), "apiSecret": {"secret": "GOOGLE_ANALYTICS_API_SECRET"}},
        }),
    ];
    if number.is_multiple_of(2) {
        let settings = json!({"apiKey": format!("phc_{number:030}")});
        destinations.push(json!({"name": "Product analytics", "type": "posthog", "settings": settings}));
    }
    if number.is_multiple_of(3) {
        let settings = json!({"siteId": format!("{}", 1_000_000 + number)});
        destinations.push(json!({"name": "Heatmaps", "type": "hotjar", "settings": settings, "requiredConsent": ["measurement", "experience"]}));
    }
    json!({
        "id": id,
        "name": format!("Shop number {number} Ltd."),
        "labels": {
            "tier": (["bronze", "silver", "gold"][number % 3]),
            "region": (["eu", "us", "apac", "latam"][number % 4]),
        },
        "trustedOrigins": [format!("https://{id}.example"), format!("https://www.{id}.example")],
        "database": {
            "type": "turso",
            "url": format!("libsql://{id}.turso.io"),
            "token": {"secret": "TURSO_AUTH_TOKEN"},
        },
        "destinations": destinations,
        "vars": {"SHOP_LANGUAGE": (["en", "de", "fr", "es"][number % 4]), "FEATURES": {"newsletter": "on", "wishlist": "off"}},
    })
}

/// The id of a number.
pub fn id(number: usize) -> String {
    format!("shop-{number:07}")
}

/// Writes fleet.yaml and so many customers into a folder; the pack has to be there.
pub fn write(folder: &Path, customers: usize) -> io::Result<()> {
    fs::create_dir_all(folder.join("customers"))?;
    fs::write(folder.join("fleet.yaml"), FLEET)?;
    (0..customers).into_par_iter().try_for_each(|number| {
        let text = serde_yaml::to_string(&customer(number)).map_err(io::Error::other)?;
        fs::write(folder.join(format!("customers/{}.yaml", id(number))), text)
    })
}
