//! The page at `/`: which workers are deployed and where they answer. Knows how to list; nothing else.

use std::fmt::Write as _;

use hyper::header;
use hyper::{HeaderMap, Response};

use super::cloud::Cloud;
use super::envelope::{Answer, Refusal};
use super::routing::{Body, host, respond, text, words};
use super::store::{self, Worker};

/// The most workers that are listed; a fleet has too many for a page.
const SHOWN: usize = 500;

/// The index, as HTML for a browser and as text for others.
pub fn page(cloud: &Cloud, headers: &HeaderMap) -> Response<Body> {
    let workers = match cloud.store.read(|db| store::deployed(db, None)) {
        Ok(workers) => workers,
        Err(Refusal { message, .. }) => return text(500, &message),
    };
    let port = words(headers, header::HOST).rsplit_once(':').map(|(_, port)| format!(":{port}")).unwrap_or_default();
    let base = format!("http://{}{port}", host(headers));
    let html = words(headers, header::ACCEPT).contains("text/html");
    let count = format!("{} deployed workers", workers.len());
    let mut lines = String::new();
    for worker in workers.iter().take(SHOWN) {
        let url = url(worker, &workers, &base, &port);
        let (name, when) = (&worker.key.name, &worker.modified);
        // Names, ids and hosts hold no character that means something in HTML: the API refuses them.
        let _ = match html {
            true => {
                writeln!(lines, "<tr><td>{name}<td>{}<td><a href=\"{url}\">{url}</a><td>{when}", worker.key.namespace)
            }
            false => writeln!(lines, "{name}\t{}\t{url}\t{when}", worker.key.namespace),
        };
    }
    if html {
        let page = format!(
            "<!DOCTYPE html><meta charset=utf-8><title>Local Cloudflare</title><h1>Local Cloudflare</h1><p>{count}.\
             <table><tr><th>Worker<th>Namespace<th>URL<th>Deployed\n{lines}</table>"
        );
        return respond(Answer::bytes(200, "text/html; charset=utf-8", page.into_bytes()));
    }
    text(200, &format!("Local Cloudflare: {count}\n{lines}"))
}

/// `<worker>.localhost`, or the path form where two workers have the same name or the name can't be a host.
fn url(worker: &Worker, all: &[Worker], base: &str, port: &str) -> String {
    let Worker { key, .. } = worker;
    let shared = all.iter().filter(|other| other.key.name == key.name).count() > 1;
    match (shared, key.name.contains('_')) {
        (true, _) => format!("{base}/accounts/{}/workers/{}/", key.account, key.name),
        (false, true) => format!("{base}/workers/{}/", key.name),
        (false, false) => format!("http://{}.localhost{port}/", key.name),
    }
}
