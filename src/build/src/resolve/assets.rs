//! The static assets of a worker: its pack's, and the folder that its spec adds. The folder is read elsewhere.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde_json::Value;

use super::bindings::reserved;
use super::worker::{PackInUse, Secrets, WorkerResolver, filled};
use flotilla_model::assets::{AssetList, HtmlHandling, OwnAssets, WorkerAssets};
use flotilla_model::binding::Binding;
use flotilla_model::customer::Database;
use flotilla_model::diagnostic::{Code, Diagnostic, Place};
use flotilla_model::limits::Limit;
use flotilla_model::spec::Settings;

/// The settings that a worker without code can't have, by their keys.
pub(super) const NEED_CODE: [&str; 9] =
    ["vars", "secrets", "services", "callers", "cors", "bindings", "database", "crons", "queueConsumers"];

/// A folder with assets that a spec names.
#[derive(Clone, Debug)]
pub struct NamedFolder {
    /// The folder, from the project's root.
    pub directory: String,
    /// The place that names it.
    pub place: Place,
    /// The handling of HTML files.
    pub html_handling: Option<HtmlHandling>,
    /// The most files that the account's limits allow.
    pub most: u64,
}

/// Takes away the settings that need code; returns the keys of those that there were.
pub(super) fn without_code(settings: &mut Settings) -> Vec<&'static str> {
    let had = [
        settings.vars.take().is_some_and(|vars| !vars.is_empty()),
        settings.secrets.take().is_some_and(|secrets| !secrets.is_empty()),
        settings.services.take().is_some_and(|services| !services.is_empty()),
        settings.callers.take().is_some_and(|callers| !callers.is_empty()),
        settings.cors.take().is_some(),
        settings.bindings.take().is_some_and(|bindings| !bindings.is_empty()),
        settings.database.take().is_some(),
        settings.crons.take().is_some_and(|crons| !crons.is_empty()),
        settings.queue_consumers.take().is_some_and(|consumers| !consumers.is_empty()),
    ];
    NEED_CODE.into_iter().zip(had).filter(|(_, had)| *had).map(|(key, _)| key).collect()
}

impl WorkerResolver<'_, '_> {
    /// Warns of settings in the customer's own file that need code, where there is none. Defaults and layers are for several packs.
    pub(super) fn warn_of_missing_code(&mut self, pack: &PackInUse<'_>, keys: &[&'static str]) {
        for key in keys {
            if let Some(place) =
                self.target.merged.key_place(&[key]).filter(|place| self.is_for_this_worker(place, key))
            {
                let message =
                    format!("{key} has no effect: the pack `{}` has static assets alone, and no code", pack.name());
                self.push(Diagnostic::warning(Code::NoEffect, place, message, "leave it out, or use a pack with code"));
            }
        }
    }

    /// Returns the assets of the worker, the files of its own folder still missing.
    pub(super) fn assets(
        &mut self,
        pack: Option<&PackInUse<'_>>,
        account: &str,
        vars: &BTreeMap<String, Value>,
        secrets: &Secrets,
        (bindings, database): (&BTreeMap<String, Binding>, &Database),
    ) -> Option<WorkerAssets> {
        let own = self.own_assets(account, pack);
        let pack = pack?;
        let Some(source) = pack.assets else {
            if let (true, Some(_)) = (pack.is_known(), &own) {
                let place = self.place(&["assets", "directory"]);
                let message =
                    format!("the pack `{}` has no static assets, so that the worker can't have any", pack.name());
                let help =
                    format!("add `assets: {{}}` to the manifest of the pack `{}`, or remove `assets`", pack.name());
                self.push(Diagnostic::error(Code::Conflict, place, message, help));
            }
            return None;
        };
        if let (None, None, false) = (&own, &source.folder, self.left_out.has("assets")) {
            let message =
                format!("the pack `{}` has no folder of static assets, and neither has the worker", pack.name());
            let help = "add `assets: { directory: assets/{customer} }`, here or to `defaults` of fleet.yaml";
            let place = self.target.subject.place.clone();
            self.push(Diagnostic::error(Code::MissingKey, place, message, help));
        }
        if let Some(name) = &source.options.binding {
            let settings = self.settings;
            let is_service = settings.services.as_ref().is_some_and(|services| services.contains_key(name));
            let of_database = matches!(database, Database::D1 { binding, .. } if binding == name);
            let is_taken = vars.contains_key(name) || secrets.contains_key(name) || bindings.contains_key(name);
            if is_taken || is_service || of_database || reserved(name).is_some() {
                let maps = ["vars", "secrets", "services", "bindings"];
                let place = maps.into_iter().find_map(|map| self.target.merged.key_place(&[map, name]));
                let place = place.unwrap_or_else(|| self.target.subject.place.clone());
                let message =
                    format!("`{name}` is the binding of the pack's static assets, and something else as well");
                self.push(Diagnostic::error(Code::Conflict, place, message, "give one of them another name"));
            }
        }
        if let Some(folder) = &own {
            let folder = NamedFolder { html_handling: source.options.html_handling, ..folder.clone() };
            self.batch.resolved.asset_folders.push(folder);
        }
        let own = own.map(|folder| OwnAssets { directory: folder.directory, list: AssetList::default() });
        Some(WorkerAssets { options: source.options.clone(), is_all: source.is_all, own })
    }

    /// Returns the folder that the spec names.
    fn own_assets(&mut self, account: &str, pack: Option<&PackInUse<'_>>) -> Option<NamedFolder> {
        let written = &self.settings.assets.as_ref()?.directory;
        let environment = self.target.base.as_ref().map_or(self.target.environment, |base| base.environment);
        let directory = filled(written, self.target.subject.id, environment.as_ref());
        let directory = directory.trim_end_matches('/').to_owned();
        let place = self.place(&["assets", "directory"]);
        let is_within = Path::new(&directory).components().all(|step| matches!(step, Component::Normal(_)));
        if !is_within || directory.is_empty() || pack.is_none() {
            if !is_within || directory.is_empty() {
                let message = format!("`{directory}` is no folder of the project");
                let help = "`directory` is a path from the project's folder, without `.` and `..`: assets/acme";
                self.push(Diagnostic::error(Code::BadAssets, place, message, help));
            }
            return None;
        }
        let most = self.batch.limit(account, Limit::AssetFiles);
        Some(NamedFolder { directory, place, html_handling: None, most })
    }
}
