//! The settings that a new customer probably needs: those that most customers of its pack have, each with a value of its own, and the
//! variables of the pack's wrangler configuration. Asks nothing and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use flotilla_model::customer::{SHARED, Worker};
use flotilla_model::text::count;
use flotilla_spec::pack::Subject;

use super::super::authoring::Workspace;

/// A variable or a binding that a new customer probably needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Need {
    /// The key of a spec that it belongs under: `vars` or `bindings`.
    pub key: &'static str,
    /// Its name.
    pub name: String,
    /// The number of other customers of the pack that set it.
    pub set_by: usize,
    /// The number of other customers of the pack.
    pub of: usize,
    /// Of a binding, the fields that each customer has its own value of.
    #[serde(skip)]
    pub own: BTreeSet<String>,
    /// Of a binding, all fields, as another customer has them.
    #[serde(skip)]
    pub fields: Map<String, Value>,
}

impl Need {
    /// Returns who sets it, as the subject of a sentence: `every other customer sets`, `2 of 3 other customers set`.
    pub fn setters(&self) -> String {
        match (self.set_by, self.of) {
            (0, _) => "the pack's wrangler configuration sets".to_owned(),
            (1, 1) => "the other customer sets".to_owned(),
            (set_by, of) if set_by == of => "every other customer sets".to_owned(),
            (set_by, of) => {
                format!("{set_by} of {} set{}", count(of, "other customer"), if set_by == 1 { "s" } else { "" })
            }
        }
    }

    /// Returns the flags that set it, with `…` in place of what has to be filled in.
    pub fn flags(&self) -> Vec<String> {
        if self.fields.is_empty() {
            return vec![format!("--set {}.{}=…", self.key, self.name)];
        }
        let flag = |(field, value): (&String, &Value)| match self.own.contains(field) {
            true => format!("--set {}.{}.{field}=…", self.key, self.name),
            false => format!("--set '{}.{}.{field}={value}'", self.key, self.name),
        };
        self.fields.iter().map(flag).collect()
    }
}

/// Returns the needs of a new customer of a pack, by name; of any, where the pack isn't known.
pub(super) fn needs(workspace: &Workspace, pack: Option<&str>) -> Vec<Need> {
    let is_sibling = |worker: &&Worker| worker.customer != SHARED && pack.is_none_or(|pack| pack == worker.pack);
    let workers: Vec<&Worker> = workspace.workers.iter().filter(is_sibling).collect();
    let of = workers.iter().map(|worker| worker.customer.as_str()).collect::<BTreeSet<_>>().len();
    let mut needs = of_siblings(&workers, of);
    let declared = pack.and_then(|name| workspace.fleet.packs.get(name)?.wrangler.as_ref());
    for declared in declared.into_iter().flat_map(|project| &project.declared) {
        let Subject::Variable(name) = &declared.subject else { continue };
        let set_by = |workers: &[&Worker]| {
            let set = workers.iter().filter(|worker| worker.vars.contains_key(name));
            set.map(|worker| worker.customer.as_str()).collect::<BTreeSet<_>>().len()
        };
        let set_by = set_by(&workers);
        let is_shared = workspace.fleet.file.defaults.as_ref().is_some_and(|defaults| defaults.contains_key("vars"))
            && workspace.fleet.document.root.along(["defaults", "vars", name.as_str()]).1;
        // What no customer has by now, none needs.
        if !is_shared && (of == 0 || (0 < set_by && set_by < of)) && !needs.iter().any(|need| need.name == *name) {
            needs.push(Need { key: "vars", name: name.clone(), set_by, of, own: BTreeSet::new(), fields: Map::new() });
        }
    }
    needs.sort_by(|a, b| (a.key, &a.name).cmp(&(b.key, &b.name)));
    needs
}

/// The values of one key, name and field, by customer.
type OfCustomers<'a> = BTreeMap<&'a str, (&'a Value, &'a Worker)>;

/// Returns what most of these workers' customers have, each with a value of its own.
fn of_siblings(workers: &[&Worker], of: usize) -> Vec<Need> {
    let mut values: BTreeMap<(&'static str, &str, &str), OfCustomers<'_>> = BTreeMap::new();
    for worker in workers {
        let vars = worker.vars.iter().map(|(name, value)| (("vars", name.as_str(), ""), value));
        let bindings = worker.bindings.iter().flat_map(|(name, binding)| {
            binding.0.iter().map(move |(field, value)| (("bindings", name.as_str(), field.as_str()), value))
        });
        for (place, value) in vars.chain(bindings) {
            values.entry(place).or_default().entry(&worker.customer).or_insert((value, worker));
        }
    }
    let mut needs: BTreeMap<(&'static str, &str), Need> = BTreeMap::new();
    for ((key, name, field), values) in values {
        // Of one other customer, only what names that customer is known to be its own.
        let is_own = match values.values().collect::<Vec<_>>()[..] {
            [(value, worker)] => {
                of == 1 && value.as_str().is_some_and(|text| text == worker.customer || worker.domains.contains(text))
            }
            ref all => all.iter().any(|(value, _)| *value != all[0].0),
        };
        if !is_own || values.len() * 2 <= of {
            continue;
        }
        let fields = values.values().next().and_then(|(_, worker)| worker.bindings.get(name));
        let fields = fields.filter(|_| key == "bindings").map(|binding| binding.0.clone()).unwrap_or_default();
        let set_by = values.len();
        let need = || Need { key, name: name.to_owned(), set_by, of, own: BTreeSet::new(), fields };
        let need = needs.entry((key, name)).or_insert_with(need);
        if key == "bindings" {
            need.own.insert(field.to_owned());
        }
    }
    needs.into_values().collect()
}
