//! Shows: the local Cloudflare.
