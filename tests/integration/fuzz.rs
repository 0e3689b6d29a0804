//! Shows that what the program reads and didn't write never makes it panic, hang, or act outside: mutations of files that are read
//! without errors. `FUZZ_SECONDS=600 cargo test --test integration -- fuzz` runs each target for ten minutes, with new mutations each time.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

#[path = "../fuzz/targets.rs"]
mod targets;

use targets::{CANARY, TARGETS, seeds};

/// The number of inputs for each target in an ordinary run.
const CASES: u32 = 200;

/// Pieces that mean something to one of the readers.
const PIECES: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\t",
    b"\0",
    b" ",
    b"\"",
    b"'",
    b"`",
    b"$",
    b"#",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b": ",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!",
    b"|",
    b">",
    b"? ",
    b"---\n",
    b"...\n",
    b"~",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"0x7fffffff",
    b"1.10",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"\xe2\x80\xa8",
    b"\xef\xbf\xbf",
    b"\xc2\x85",
    b"\\ud800",
    b"\\u0000",
    b"=",
    b"export ",
    b"..",
    b"/",
    b"../",
    b"/etc",
    b"@ROOT@",
    b"@AROUND@",
    b"@AROUND@/outside",
    b"link/",
    b".git/hooks/x",
    b"[[",
    b"]]",
    b"'''",
    b"/*",
    b"//",
    b"success",
    b"result",
    b"result_info",
    b"cursor",
    b"--b",
    b"\r\n\r\n",
    CANARY.as_bytes(),
];

/// A change of the bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static [u8]),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize, usize),
    Cut(prop::sample::Index),
    /// Goes on as another seed does.
    Splice(prop::sample::Index, prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        5 => (at(), prop::sample::select(PIECES)).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        3 => (at(), 1..40_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        2 => (at(), 1..60_usize, prop_oneof![1..4_usize, 100..3_000_usize]).prop_map(|(at, length, times)| Mutation::Repeat(at, length, times)),
        1 => at().prop_map(Mutation::Cut),
        1 => (at(), at(), at()).prop_map(|(at, seed, from)| Mutation::Splice(at, seed, from)),
    ]
}

fn mutated(seeds: &[Vec<u8>], seed: prop::sample::Index, mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = seed.get(seeds).clone();
    for mutation in mutations {
        let place = |at: &prop::sample::Index, bytes: &[u8]| at.index(bytes.len() + 1);
        match mutation {
            Mutation::Set(at, byte) => {
                let at = place(at, &bytes);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
            }
            Mutation::Insert(at, piece) => {
                let at = place(at, &bytes);
                bytes.splice(at..at, piece.iter().copied());
            }
            Mutation::Remove(at, length) => {
                let at = place(at, &bytes);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Mutation::Repeat(at, length, times) => {
                let at = place(at, &bytes);
                let piece = bytes[at..(at + length).min(bytes.len())].repeat(*times);
                bytes.splice(at..at, piece);
            }
            Mutation::Cut(at) => bytes.truncate(place(at, &bytes)),
            Mutation::Splice(at, seed, from) => {
                let other = seed.get(seeds);
                bytes.truncate(place(at, &bytes));
                bytes.extend_from_slice(&other[place(from, other)..]);
            }
        }
    }
    bytes
}

/// Runs a target with its seeds and with mutations of them.
fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(other, _)| *other == name).expect("a target");
    let seeds = seeds().remove(name).expect("seeds");
    assert!(!seeds.is_empty(), "{name} has no seeds");
    seeds.iter().for_each(|seed| target(seed));
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let rng_seed = if end.is_some() { RngSeed::Random } else { RngSeed::Fixed(5) };
    let mut inputs: u64 = 0;
    loop {
        let config = Config { cases: CASES, rng_seed, failure_persistence: None, ..Config::default() };
        let strategy = (any::<prop::sample::Index>(), prop::collection::vec(mutation(), 0..8));
        let ran = TestRunner::new(config).run(&strategy, |(seed, mutations)| {
            target(&mutated(&seeds, seed, &mutations));
            Ok(())
        });
        if let Err(failure) = ran {
            panic!("{name}: {failure}");
        }
        inputs += u64::from(CASES);
        if end.is_none_or(|end| Instant::now() >= end) {
            break;
        }
    }
    println!("{name}: {inputs} inputs");
}

macro_rules! fuzzed {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn each_target_is_run_here_and_by_cargo_fuzz() {
            let named: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(named, [$(stringify!($name)),*]);
            let manifest = include_str!("../fuzz/Cargo.toml");
            for name in named {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "tests/fuzz/Cargo.toml has no {name}");
                let program = crate::support::repository().join(format!("tests/fuzz/bin/{name}.rs"));
                let text = std::fs::read_to_string(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
                assert!(text.contains(&format!("targets::{name}(")), "{text}");
            }
        }
    };
}

fuzzed! { yaml spec fleet dotenv wrangler_toml wrangler_jsonc plan_file undo_journal lock answer }
