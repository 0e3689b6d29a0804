//! A fleet of any size whose code is one wrangler project, `apps/shop`, which wrangler bundles once for all customers.

use std::fs;
use std::io;
use std::path::Path;

use rayon::prelude::*;
use serde_json::json;

use super::fleet;
use flotilla_spec::pack::WRANGLER;

const FLEET: &str = "name: generated
accounts:
  default:
    id: { env: CLOUDFLARE_ACCOUNT_ID }
    token: { secret: CLOUDFLARE_API_TOKEN }
    limits: { workers: 10000000 }
    apiLimit: { requests: 1000000, seconds: 1, headroom: 0 }
packs:
  shop: { path: templates/shop }
defaults:
  pack: shop
  compatibilityDate: 2026-06-01
  compatibilityFlags: [nodejs_compat]
  workersDev: true
  vars: { CURRENCY: EUR }
";

const CONFIG: &str = r#"{
  "name": "shop",
  "main": "src/index.ts",
  "compatibility_date": "2026-06-01",
  "compatibility_flags": ["nodejs_compat"],
  "vars": { "CURRENCY": "EUR", "NAME": "nobody" },
}
"#;

const INDEX: &str = r#"import { createHash } from "node:crypto";
import { price } from "./price";

interface Env { CURRENCY: string; NAME: string }

export default {
  fetch(request: Request, env: Env): Response {
    const { pathname } = new URL(request.url);
    if (pathname === "/health") return Response.json({ ok: true });
    const etag = createHash("sha256").update(env.NAME + pathname).digest("hex");
    return Response.json({ shop: env.NAME, price: price(pathname.length, env.CURRENCY) }, { headers: { etag } });
  },
};
"#;

const PRICE: &str = "export const price = (amount: number, currency: string) => `${amount.toFixed(2)} ${currency}`;\n";

/// Writes the project, its pack, fleet.yaml and so many customers into a folder.
pub fn write(folder: &Path, customers: usize) -> io::Result<()> {
    for part in ["apps/shop/src", "templates/shop", "customers"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let pack = format!(
        "name: shop\nprefix: shop\nbundler: wrangler\nconfig: ../../apps/shop/wrangler.jsonc\nwrangler: {WRANGLER}\n\
         verify:\n  - {{ name: health, path: /health, status: 200 }}\n"
    );
    fs::write(folder.join("fleet.yaml"), FLEET)?;
    fs::write(folder.join("templates/shop/pack.yaml"), pack)?;
    fs::write(folder.join("apps/shop/wrangler.jsonc"), CONFIG)?;
    fs::write(folder.join("apps/shop/src/index.ts"), INDEX)?;
    fs::write(folder.join("apps/shop/src/price.ts"), PRICE)?;
    (0..customers).into_par_iter().try_for_each(|number| {
        let (id, own) = (fleet::id(number), fleet::customer(number));
        let mut spec = json!({"id": id, "name": own["name"], "labels": own["labels"], "vars": {"NAME": own["name"]}});
        if number % 5 == 0 {
            spec["environments"] = json!({"production": {}, "staging": {"vars": {"CURRENCY": "XTS"}}});
        }
        let text = serde_yaml::to_string(&spec).map_err(io::Error::other)?;
        fs::write(folder.join(format!("customers/{id}.yaml")), text)
    })
}
