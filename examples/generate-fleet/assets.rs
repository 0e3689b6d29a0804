//! A fleet of any size whose customers share a site without code: a folder with so many files.

use std::fs;
use std::io;
use std::path::Path;

use rayon::prelude::*;
use serde_json::json;

use super::fleet;

const FLEET: &str = "name: generated
accounts:
  default:
    id: { env: CLOUDFLARE_ACCOUNT_ID }
    token: { secret: CLOUDFLARE_API_TOKEN }
    limits: { workers: 10000000 }
packs:
  site: { path: templates/site }
defaults:
  pack: site
  compatibilityDate: 2026-06-01
  workersDev: true
";

const PACK: &str = "name: site
prefix: site
assets: { directory: public, notFoundHandling: 404-page }
verify:
  - { name: health, path: /, status: 200 }
";

/// Writes the site, its pack, fleet.yaml and so many customers into a folder.
pub fn write(folder: &Path, customers: usize, files: usize) -> io::Result<()> {
    let public = folder.join("templates/site/public");
    for part in [public.join("pages"), folder.join("customers")] {
        fs::create_dir_all(part)?;
    }
    fs::write(folder.join("fleet.yaml"), FLEET)?;
    fs::write(folder.join("templates/site/pack.yaml"), PACK)?;
    // The two that a site needs are among them.
    fs::write(public.join("index.html"), "<h1>Our shops</h1>\n")?;
    fs::write(public.join("404.html"), "<h1>Not found</h1>\n")?;
    (2..files).into_par_iter().try_for_each(|number| {
        fs::write(public.join(format!("pages/{number:05}.html")), format!("<h1>Page {number}</h1>\n"))
    })?;
    (0..customers).into_par_iter().try_for_each(|number| {
        let (id, own) = (fleet::id(number), fleet::customer(number));
        let spec = json!({"id": id, "name": own["name"], "labels": own["labels"]});
        let text = serde_yaml::to_string(&spec).map_err(io::Error::other)?;
        fs::write(folder.join(format!("customers/{id}.yaml")), text)
    })
}
