//! The sources of a customer's settings, and those that apply to one of its workers. Knows trees, not what they mean.

use std::collections::BTreeSet;

use flotilla_model::diagnostic::Place;
use flotilla_model::preview::Preview;
use flotilla_model::spec::Environment;
use flotilla_spec::layer::{self, Merged};
use flotilla_spec::project::{Fleet, Spec};
use flotilla_spec::yaml::{Document, Kind, Node};

use super::left_out::LeftOut;

/// The keys of a layer that aren't settings of a worker.
const STRUCTURE: [&str; 6] = ["id", "name", "labels", "layers", "environments", "workers"];

/// One customer's sources of settings, the weakest first: their documents, and where in them.
pub(super) struct Sources<'a> {
    pub(super) roots: Vec<(&'a Document, &'a Node)>,
    /// Env files, which hold in one environment; after how many of the roots they come.
    pub(super) only: Vec<(usize, Environment, &'a Document)>,
    /// The preview that is handled, if it isn't the fleet itself.
    pub(super) preview: Option<&'a Preview>,
    /// Whether something of any source was left out as faulty.
    is_partial: bool,
    /// Documents of layers of which it isn't known whether they are used.
    open: Vec<&'a Document>,
    /// Whether it isn't known which layers there are.
    is_open: bool,
}

impl<'a> Sources<'a> {
    fn none(fleet: &'a Fleet) -> Sources<'a> {
        let (preview, is_partial) = (fleet.preview.as_ref(), fleet.is_partial);
        Sources { roots: Vec::new(), only: Vec::new(), preview, is_partial, open: Vec::new(), is_open: false }
    }

    pub(super) fn of(fleet: &'a Fleet, spec: &'a Spec) -> Sources<'a> {
        let mut sources = Sources::none(fleet);
        sources.is_open = spec.is_open;
        let open = spec.open_layers.iter().map(|index| &fleet.layers[*index]);
        sources.open = open.flat_map(|layer| &layer.documents).collect();
        let mut layers = spec.layers.iter().map(|index| &fleet.layers[*index]);
        sources.is_partial |=
            spec.is_partial || spec.is_open || !sources.open.is_empty() || layers.any(|layer| !layer.errors.is_empty());
        sources.roots.extend(fleet.document.root.get("defaults").map(|node| (&fleet.document, node)));
        for index in &spec.layers {
            sources.roots.extend(fleet.layers[*index].documents.iter().map(|document| (document, &document.root)));
            let own = spec.env_files.iter().filter(|file| file.layer == *index);
            let after = sources.roots.len();
            sources.only.extend(own.filter_map(|file| Some((after, file.environment, file.document.as_ref()?))));
        }
        sources.roots.push((&spec.document, &spec.document.root));
        sources
    }

    /// Returns the sources of a worker that all customers share.
    pub(super) fn shared(fleet: &'a Fleet, of: Option<&'a Node>) -> Sources<'a> {
        let mut sources = Sources::none(fleet);
        let defaults = fleet.document.root.get("defaults");
        sources.roots.extend(defaults.into_iter().chain(of).map(|node| (&fleet.document, node)));
        sources
    }

    /// Returns the settings that apply to a worker, the weakest first.
    pub(super) fn chain(&self, environment: Environment, role: Option<&str>) -> Vec<(&'a Document, &'a Node)> {
        if environment == Environment::Preview {
            // Settings for previews override all settings of the environment that they are derived from, wherever they are defined: so one
            // line of fleet.yaml can keep all previews off a database.
            let mut chain = self.base(role).map(|base| self.chain(base, role)).unwrap_or_default();
            chain.extend(self.of_previews(role));
            return chain;
        }
        let mut chain = Vec::with_capacity(2 * self.roots.len() + 2);
        for (index, (document, root)) in self.roots.iter().enumerate() {
            let only = self.only.iter().filter(|(after, of, _)| *after == index && *of == environment);
            chain.extend(only.map(|(_, _, document)| (*document, &document.root)));
            let mut parts = vec![Some(*root)];
            parts.push(below(root, "environments", environment.as_ref()));
            if let Some(own) = role.and_then(|role| below(root, "workers", role)) {
                parts.push(Some(own));
                parts.push(below(own, "environments", environment.as_ref()));
            }
            chain.extend(parts.into_iter().flatten().map(|node| (*document, node)));
        }
        chain
    }

    /// Returns the settings of a worker that aren't known, as they were left out as faulty.
    pub(super) fn left_out(&self, environment: Environment, role: Option<&str>) -> LeftOut {
        let mut left_out = LeftOut::default();
        for (index, (_, root)) in self.roots.iter().enumerate().filter(|_| self.is_partial) {
            // The spec is the last one: its settings override all layers.
            if index + 1 == self.roots.len() {
                if self.is_open {
                    left_out.add_source();
                }
                self.open.iter().for_each(|document| left_out.add_open(&document.root));
            }
            left_out.add(root);
            left_out.add_below(root, "environments", environment.as_ref());
            match (root.get("workers"), role) {
                (Some(workers), _) if workers.is_left_out() => left_out.add_source(),
                (Some(workers), Some(role)) => {
                    if let Some(own) = workers.get(role) {
                        left_out.add(own);
                        left_out.add_below(own, "environments", environment.as_ref());
                    }
                }
                _ => {}
            }
        }
        if environment == Environment::Preview && self.roots.iter().any(|(_, root)| root.has_left_out()) {
            left_out.add_source();
        }
        left_out
    }

    /// Returns whether it isn't known which workers there are.
    pub(super) fn lacks_workers(&self) -> bool {
        let is_open = |root: &Node| root.is_left_out() || root.get("workers").is_some_and(Node::is_left_out);
        self.is_open
            || self.is_partial && self.roots.iter().any(|(_, root)| is_open(root))
            || self.open.iter().any(|document| is_open(&document.root) || document.root.get("workers").is_some())
    }

    /// Returns whether it isn't known in which environments a worker exists.
    pub(super) fn lacks_environments(&self, role: Option<&str>) -> bool {
        let is_open = |node: Option<&Node>| {
            node.is_some_and(|node| node.is_left_out() || node.get("environments").is_some_and(Node::has_left_out))
        };
        let of_role = |root: &'a Node| role.and_then(|role| below(root, "workers", role));
        self.lacks_workers()
            || self.open.iter().any(|document| document.root.get("environments").is_some())
            || self.is_partial && self.roots.iter().any(|(_, root)| is_open(Some(root)) || is_open(of_role(root)))
    }

    /// Returns the settings for previews alone, the weakest first.
    pub(super) fn of_previews(&self, role: Option<&str>) -> Vec<(&'a Document, &'a Node)> {
        let word = Environment::Preview.as_ref();
        let parts = self.roots.iter().flat_map(|(document, root)| {
            let own = role.and_then(|role| below(root, "workers", role));
            let nodes = [below(root, "environments", word), own.and_then(|own| below(own, "environments", word))];
            nodes.into_iter().flatten().map(move |node| (*document, node))
        });
        parts.collect()
    }

    /// Returns the environment whose settings a preview of a worker takes: the one that it is made from, or production, or the last one
    /// in which the worker exists.
    pub(super) fn base(&self, role: Option<&str>) -> Option<Environment> {
        let (standing, from) = (self.standing(role), self.preview?.from);
        let wanted = [from, Environment::Production].into_iter().find(|environment| standing.contains(environment));
        wanted.or(standing.last().copied())
    }

    /// Returns whether the strongest `workerName` is for one environment alone, so that nothing is added to it.
    pub(super) fn named_exactly(&self, environment: Environment, role: Option<&str>) -> bool {
        let named = |node: Option<&Node>| node.is_some_and(|node| node.get("workerName").is_some());
        let strongest = self.roots.iter().rev().find_map(|(_, root)| {
            let own = role.and_then(|role| below(root, "workers", role));
            let here = |node: &'a Node| below(node, "environments", environment.as_ref());
            let levels = [(own.and_then(here), true), (own, false), (here(root), true), (Some(*root), false)];
            levels.into_iter().find(|(node, _)| named(*node)).map(|(_, exact)| exact)
        });
        strongest.unwrap_or(false)
    }

    /// Returns the roles: `None` alone where there is one worker.
    pub(super) fn roles(&self) -> Vec<Option<&'a str>> {
        let mut roles: Vec<Option<&'a str>> = Vec::new();
        for (_, root) in &self.roots {
            let Some(Kind::Map(entries)) = root.get("workers").map(|node| &node.kind) else { continue };
            for (role, _, node) in entries {
                // Null removes what a weaker source has; if there is nothing to remove, it is a worker with default settings. So is a name
                // alone, in any source.
                let known = roles.contains(&Some(role));
                roles.retain(|other| *other != Some(role));
                if !known || !matches!(node.kind, Kind::Null) {
                    roles.push(Some(role));
                }
            }
        }
        if roles.is_empty() {
            return vec![None];
        }
        roles.sort_unstable();
        roles
    }

    /// Returns the environments that a worker is resolved for.
    pub(super) fn environments(&self, role: Option<&str>) -> Vec<Environment> {
        if self.preview.is_some() { vec![Environment::Preview] } else { self.standing(role) }
    }

    /// Returns the environments in which a worker exists: production, and those that any source adds; a written `null` removes one. The
    /// sources of the role override those of the customer. Settings for previews don't count.
    pub(super) fn standing(&self, role: Option<&str>) -> Vec<Environment> {
        let mut standing = BTreeSet::from([Environment::Production]);
        for (environment, node) in self.sets(role).flatten() {
            match matches!(node.kind, Kind::Null) {
                true => standing.remove(&environment),
                false => standing.insert(environment),
            };
        }
        standing.into_iter().collect()
    }

    /// Returns whether a worker exists in an environment only because nothing says otherwise: the sources name environments, and none of
    /// them names this one.
    pub(super) fn is_implied(&self, environment: Environment, role: Option<&str>) -> bool {
        let mut named = self.sets(role).flatten().map(|(named, _)| named).peekable();
        environment != Environment::Preview && named.peek().is_some() && named.all(|named| named != environment)
    }

    /// Returns whether a worker exists in an environment only by inheritance: the strongest source that names environments names others.
    pub(super) fn is_inherited(&self, environment: Environment, role: Option<&str>) -> bool {
        let strongest = self.sets(role).filter(|named| !named.is_empty()).last().unwrap_or_default();
        !strongest.is_empty() && strongest.iter().all(|(named, _)| *named != environment)
    }

    /// Returns the lasting environments that each source names, the weakest first.
    fn sets(&self, role: Option<&str>) -> impl Iterator<Item = Vec<(Environment, &'a Node)>> {
        let of_all = self.roots.iter().filter_map(|(_, root)| root.get("environments"));
        let of_role = self.roots.iter().filter_map(move |(_, root)| below(root, "workers", role?)?.get("environments"));
        of_all.chain(of_role).map(|node| match &node.kind {
            Kind::Map(entries) => {
                let named = |(key, _, node): &'a (String, _, Node)| Some((Environment::of(key)?, node));
                entries.iter().filter_map(named).filter(|(named, _)| *named != Environment::Preview).collect()
            }
            _ => Vec::new(),
        })
    }

    /// Returns what the sources set under a key of a worker for one environment.
    pub(super) fn sets_in(
        &self,
        environment: Environment,
        role: Option<&str>,
        key: &str,
    ) -> impl Iterator<Item = &'a Node> {
        self.roots.iter().flat_map(move |(_, root)| {
            let own = role.and_then(|role| below(root, "workers", role));
            [Some(*root), own]
                .into_iter()
                .flatten()
                .filter_map(move |node| below(node, "environments", environment.as_ref())?.get(key))
        })
    }

    /// Returns the place of the strongest `environments` that a worker has.
    pub(super) fn place_of_environments(&self, role: Option<&str>) -> Option<Place> {
        let own = |(document, root): &(&'a Document, &'a Node)| {
            let key = |node: &Node| match &node.kind {
                Kind::Map(entries) => entries.iter().find(|(key, ..)| key == "environments").map(|(_, span, _)| *span),
                _ => None,
            };
            Some((role.and_then(|role| key(below(root, "workers", role)?)), key(root), *document))
        };
        let found: Vec<_> = self.roots.iter().rev().filter_map(own).collect();
        let of_role = found.iter().find_map(|(role, _, document)| Some(document.place((*role)?)));
        of_role.or_else(|| found.iter().find_map(|(_, all, document)| Some(document.place((*all)?))))
    }
}

pub(super) fn below<'a>(root: &'a Node, map: &str, key: &str) -> Option<&'a Node> {
    root.get(map)?.get(key)
}

pub(super) fn settings_only(key: &str) -> bool {
    !STRUCTURE.contains(&key)
}

/// Returns the settings of one worker of a customer, each value with its place.
pub fn merged<'a>(fleet: &'a Fleet, spec: &'a Spec, environment: Environment, role: Option<&str>) -> Merged<'a> {
    layer::merge(&Sources::of(fleet, spec).chain(environment, role), settings_only)
}

/// The same for a worker that all customers share.
pub fn merged_shared<'a>(fleet: &'a Fleet, environment: Environment, role: &str) -> Merged<'a> {
    let sources = Sources::shared(fleet, below(&fleet.document.root, "sharedWorkers", role));
    layer::merge(&sources.chain(environment, None), settings_only)
}
