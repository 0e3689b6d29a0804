//! One deployment of a customer: its current values, and where its spec defines each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use flotilla_deploy::state::{Deployed, ResourceKind, State, WorkerId};
use flotilla_model::customer::{Database, SHARED, TURSO_URL, Worker};
use flotilla_model::diagnostic::did_you_mean;
use flotilla_model::failure::Failure;
use flotilla_model::platform::Home;
use flotilla_model::spec::Environment;
use flotilla_spec::pack::Pack;
use flotilla_spec::yaml;

use super::super::authoring::Workspace;
use super::super::prompts::Prompter;
use super::super::ui::clean;
use super::super::worker_details::host_of;
use flotilla_model::text::mask;

/// One worker, and the time of its deploy.
pub struct Deployment<'a> {
    /// The worker.
    pub worker: &'a Worker,
    deployed_at: Option<i64>,
    /// Whether its environment alone is changed, whatever it shares with others.
    alone: bool,
}

/// The place of a value in a deployment's spec.
pub struct Place {
    /// The path in the file.
    pub path: Vec<String>,
    /// Whether the spec defines it.
    pub there: bool,
}

impl<'a> Deployment<'a> {
    /// Returns the deployment that the flags name, or asks which one.
    pub fn choose(
        prompter: &Prompter,
        workspace: &'a Workspace,
        customer: Option<&str>,
        environment: Option<Environment>,
    ) -> Result<Deployment<'a>, Failure> {
        if let Some(customer) = customer
            && !workspace.ids.contains(customer)
        {
            let near = did_you_mean(customer, workspace.ids.iter().map(String::as_str));
            return Err(Failure::usage(format!("there is no customer `{}`", clean(customer))).hint(near.map_or_else(
                || format!("`flotilla new {}` adds it", clean(customer)),
                |near| format!("did you mean `{near}`?"),
            )));
        }
        let deployed = State::read(&workspace.cloud.state)?.deployed()?;
        let mut all: Vec<Deployment<'_>> = workspace
            .workers
            .iter()
            .filter(|worker| worker.customer != SHARED && customer.is_none_or(|customer| customer == worker.customer))
            .filter(|worker| environment.is_none_or(|environment| environment == worker.environment))
            .map(|worker| {
                let deployed_at = deployed_at(workspace, &deployed, worker);
                Deployment { worker, deployed_at, alone: environment.is_some() }
            })
            .collect();
        all.sort_by(|item, other| item.key().cmp(&other.key()));
        if all.is_empty() {
            return Err(match customer {
                Some(customer) => Failure::new(format!("{} has errors, or no such environment", clean(customer)))
                    .hint(format!("`flotilla check {}` shows why", clean(customer))),
                None => Failure::new("there is no customer to change").hint("`flotilla new` adds one"),
            });
        }
        let at = match (all.len(), customer) {
            (1, Some(_)) => 0,
            (_, None) if !prompter.is_interactive() => return Err(prompter.missing("the customer", "CUSTOMER")),
            // A value for all environments is changed for all of them, and production is the selected one.
            (_, Some(_)) if !prompter.is_interactive() => 0,
            _ => {
                let items: Vec<String> = all.iter().map(|item| item.line(workspace)).collect();
                prompter.select("Deployment", &items, 0)?
            }
        };
        Ok(all.swap_remove(at))
    }

    fn key(&self) -> (&str, std::cmp::Reverse<Environment>, Option<&str>) {
        (&self.worker.customer, std::cmp::Reverse(self.worker.environment), self.worker.role.as_deref())
    }

    /// Returns a line for lists.
    fn line(&self, workspace: &Workspace) -> String {
        let role = self.worker.role.as_ref().map(|role| format!(" {role}")).unwrap_or_default();
        format!(
            "{}{role} ({})  {}  {}  {}  {}",
            self.worker.customer,
            self.worker.environment,
            self.host().unwrap_or_else(|| "workers.dev".to_owned()),
            mask(&self.account_id(workspace)),
            self.database().0,
            self.deployed_at.map_or("not deployed".to_owned(), ago),
        )
    }

    /// Returns the environment that is changed alone, if the customer has others, too.
    pub fn only(&self, workspace: &Workspace) -> Option<Environment> {
        let is_other =
            |other: &Worker| other.customer == self.worker.customer && other.environment != self.worker.environment;
        (self.alone && workspace.workers.iter().any(is_other)).then_some(self.worker.environment)
    }

    /// Returns the host name of its zone, if it has one.
    pub fn host_name(&self) -> Option<String> {
        let host = self.host()?;
        Some(host.split('/').next().unwrap_or_default().trim_start_matches(['*', '.']).to_owned())
    }

    /// Returns the id of its zone, as far as the state knows it.
    pub fn cached_zone_id(&self, workspace: &Workspace) -> Result<Option<String>, Failure> {
        let Some(host) = self.host_name() else { return Ok(None) };
        let zone = workspace.fleet.zone_of(&host).to_owned();
        State::read(&workspace.cloud.state)?.cached_id(&self.account_id(workspace), ResourceKind::Zone, &zone)
    }

    /// Returns the lines of the summary, with ids masked.
    pub fn summary(
        &self,
        workspace: &Workspace,
        zone_id: Option<&str>,
    ) -> Result<Vec<(&'static str, String)>, Failure> {
        let worker = self.worker;
        let token = &workspace.fleet.accounts[worker.account.as_str()].token.secret;
        let configured = if workspace.secrets.token(token).is_some() { "******** (configured)" } else { "not set" };
        let (name, id) = self.database();
        let id = match id {
            None if matches!(worker.database, Database::D1 { .. }) => {
                let state = State::read(&workspace.cloud.state)?;
                state.cached_id(&self.account_id(workspace), ResourceKind::Database, &name)?
            }
            id => id,
        };
        let with_id = |name: String, id: Option<&str>| match id {
            Some(id) => format!("{name} ({})", mask(id)),
            None => name,
        };
        let host = self.host();
        let zone = self.host_name().map(|host| with_id(workspace.fleet.zone_of(&host).to_owned(), zone_id));
        let environments: BTreeSet<&str> = workspace
            .workers
            .iter()
            .filter(|other| other.customer == worker.customer)
            .map(|other| other.environment.as_ref())
            .collect();
        Ok(vec![
            ("Customer", format!("{} ({})", worker.customer, worker.environment)),
            ("Environments", environments.into_iter().collect::<Vec<_>>().join(", ")),
            ("Account", format!("{} ({})", worker.account, mask(&self.account_id(workspace)))),
            ("Zone", zone.unwrap_or_else(|| "none".to_owned())),
            ("Domain", host.unwrap_or_else(|| "workers.dev alone".to_owned())),
            ("Database", with_id(name, id.as_deref())),
            ("API token", configured.to_owned()),
            ("Deployed", self.deployed_at.map_or("never".to_owned(), ago)),
        ])
    }

    fn host(&self) -> Option<String> {
        let worker = self.worker;
        let route = || worker.routes.iter().next().map(|route| route.pattern.clone());
        let host = || worker.hosts.as_ref().and_then(|hosts| hosts.names.iter().next().cloned());
        worker.domains.iter().next().cloned().or_else(route).or_else(host)
    }

    /// Returns the database's name, and its id, if there is one.
    fn database(&self) -> (String, Option<String>) {
        match &self.worker.database {
            Database::None => ("no database".to_owned(), None),
            Database::D1 { name, id, .. } => (name.clone(), id.clone()),
            Database::Turso => {
                let url = self.worker.vars.get(TURSO_URL).and_then(Value::as_str).unwrap_or("Turso");
                (host_of(url).to_owned(), None)
            }
        }
    }

    /// Returns the id of its account.
    pub fn account_id(&self, workspace: &Workspace) -> String {
        workspace.cloud.home(&self.worker.account, None).account_id
    }

    /// Returns its pack.
    pub fn pack<'g>(&self, workspace: &'g Workspace) -> &'g Pack {
        &workspace.fleet.packs[&self.worker.pack]
    }

    /// Returns the path of its spec.
    pub fn file(&self) -> &str {
        &self.worker.file
    }

    /// Returns the customer's own env files of layers for this environment, the strongest first.
    pub fn env_files(&self, workspace: &Workspace) -> Vec<String> {
        let folders = workspace.fleet.layers.iter().rev().filter_map(|layer| layer.rule.env_files.as_ref());
        folders
            .map(|folder| format!("{folder}/customers/{}/{}.env", self.worker.customer, self.worker.environment))
            .collect()
    }

    /// Returns whether its environment alone is changed.
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Returns whether the spec defines a value, for this environment alone or for all.
    pub fn is_defined(&self, text: &str, path: &[String]) -> bool {
        self.value(text, path).is_some()
    }

    /// Returns the value that the spec defines, for this environment alone or for all.
    pub fn value(&self, text: &str, path: &[String]) -> Option<Value> {
        let whole = value(text);
        self.levels().iter().find_map(|above| at(&whole, &whole_of(above, path))).cloned()
    }

    /// Returns the paths of the maps in which the spec sets the worker, the strongest first.
    fn levels(&self) -> Vec<Vec<String>> {
        let environment = ["environments".to_owned(), self.worker.environment.to_string()];
        let mut levels: Vec<Vec<String>> = Vec::new();
        if let Some(role) = &self.worker.role {
            let role = ["workers".to_owned(), role.clone()];
            levels.push([role.as_slice(), environment.as_slice()].concat());
            levels.push(role.to_vec());
        }
        levels.push(environment.to_vec());
        levels.push(Vec::new());
        levels
    }

    /// Returns the place of a value: for this environment and role alone, or for all of the customer's workers. Of an environment that
    /// is changed alone, the place is in it, wherever the value is now.
    pub fn place(&self, text: &str, path: &[String]) -> Place {
        let value = value(text);
        let mut above = self.levels();
        if self.alone {
            above.retain(|level| level.iter().any(|step| step == "environments"));
        }
        let whole = |above: &Vec<String>| above.iter().chain(path).cloned().collect::<Vec<_>>();
        let is_there = |path: &Vec<String>| at(&value, path).is_some();
        if let Some(path) = above.iter().map(whole).find(is_there) {
            return Place { path, there: true };
        }
        // What is new in a map belongs to the map.
        let begun = above.iter().find(|above| path.len() > 1 && is_there(&whole_of(above, &path[..path.len() - 1])));
        // Otherwise in the strongest of those that hold in all environments, or in the one that is changed alone.
        let is_new_at = |level: &&Vec<String>| self.alone || !level.iter().any(|step| step == "environments");
        let level = begun.or_else(|| above.iter().find(is_new_at)).cloned().unwrap_or_default();
        Place { path: whole(&level), there: false }
    }

    /// Returns the items of a list of the spec.
    pub fn list(&self, text: &str, path: &[String]) -> Vec<Value> {
        at(&value(text), path).and_then(Value::as_array).cloned().unwrap_or_default()
    }

    /// Returns the names of the spec's destinations, and whether each is in use.
    pub fn destinations(&self, text: &str) -> Vec<(String, bool)> {
        let place = self.place(text, &["destinations".to_owned()]);
        let name = |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["enabled"] != false));
        self.list(text, &place.path).iter().filter_map(name).collect()
    }
}

fn whole_of(above: &[String], path: &[String]) -> Vec<String> {
    above.iter().chain(path).cloned().collect()
}

pub(super) fn value(text: &str) -> Value {
    yaml::parse("", text.as_bytes()).0.map_or(Value::Null, |document| document.root.to_value())
}

pub(super) fn at<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match value {
        Value::Object(map) => map.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn deployed_at(workspace: &Workspace, deployed: &BTreeMap<WorkerId, Deployed>, worker: &Worker) -> Option<i64> {
    let home: Home = workspace.cloud.home(&worker.account, worker.namespace.as_deref());
    deployed.get(&(home, worker.name.clone())).map(|deployed| deployed.deployed_at)
}

/// Returns how long ago a moment was, in words.
fn ago(at: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    since(i64::try_from(now).unwrap_or_default() - at)
}

fn since(seconds: i64) -> String {
    let in_units =
        |number: i64, unit: &str| if number == 1 { format!("1 {unit} ago") } else { format!("{number} {unit}s ago") };
    match seconds {
        ..60 => "just now".to_owned(),
        60..3600 => in_units(seconds / 60, "minute"),
        3600..86_400 => in_units(seconds / 3600, "hour"),
        86_400..604_800 => in_units(seconds / 86_400, "day"),
        604_800..31_536_000 => in_units(seconds / 604_800, "week"),
        _ => in_units(seconds / 31_536_000, "year"),
    }
}

#[cfg(test)]
mod tests {
    use super::since;

    #[test]
    fn times_are_told_as_people_tell_them() {
        assert_eq!(
            [5, 60, 7200, 172_800, 700_000, 70_000_000].map(since),
            ["just now", "1 minute ago", "2 hours ago", "2 days ago", "1 week ago", "2 years ago"]
        );
    }
}
