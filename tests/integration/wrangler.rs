//! Shows: real wrangler against what we generate and against the local Cloudflare.
