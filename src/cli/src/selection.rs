//! The options that select a command's customers.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::OnceLock;

use flotilla_engine::selection::Selection as Selected;
use flotilla_model::environment::Flaw;
use flotilla_model::selection::Selector;
use flotilla_model::spec::Environment;
use flotilla_spec::project;

/// Customers by id, label and environment; without any of them, the whole fleet.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selection {
    /// Customer ids or globs, such as 'shop-*' [default: all]
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<String>,
    /// Select customers by label: tier=gold,region!=eu · key · !key · 'key in (a,b)' · 'key notin (a,b)'
    #[arg(long = "label", short = 'l', value_name = "SELECTOR")]
    labels: Vec<Selector>,
    /// Select environments; can be repeated or separated by commas
    #[arg(long, value_name = "NAME", value_parser = environment, value_delimiter = ',')]
    env: Vec<Environment>,
    /// Select customers whose output changed since this commit, branch or tag
    #[arg(long, value_name = "REF")]
    since: Option<String>,
    /// The selection that these options make.
    #[arg(skip)]
    selected: OnceLock<Selected>,
}

impl Deref for Selection {
    type Target = Selected;

    fn deref(&self) -> &Selected {
        self.selected.get_or_init(|| {
            Selected::new(self.customers.clone(), self.labels.clone(), self.env.clone(), self.since.clone())
        })
    }
}

/// An environment by its name.
pub fn environment(text: &str) -> Result<Environment, String> {
    match Environment::written(text) {
        Ok(Environment::Preview) => Err("previews have commands of their own: flotilla preview".to_owned()),
        Ok(environment) => Ok(environment),
        Err(Flaw::Misspelt(near)) => Err(format!("did you mean {near}?")),
        Err(flaw) => Err(flaw.help()),
    }
}

impl Selection {
    /// Returns the same selection of these customers' files alone. None where that can't be told from the files: customers are selected by
    /// more than their environment.
    pub fn narrowed(&self, files: &BTreeSet<String>) -> Option<Selected> {
        if !self.customers.is_empty() || !self.labels.is_empty() || self.since.is_some() || files.is_empty() {
            return None;
        }
        let ids = files.iter().map(|file| project::id_of(file).to_owned()).collect();
        Some(Selected::new(ids, Vec::new(), self.env.clone(), None))
    }

    /// The words of a command line that select the same; customers come last.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let labels = self.labels.iter().map(|selector| ("--label", selector.to_string()));
        let env = self.env.iter().map(|environment| ("--env", environment.to_string()));
        let since = self.since.iter().map(|reference| ("--since", reference.clone()));
        for (option, value) in labels.chain(env).chain(since) {
            words.push(format!("{option}={value}"));
        }
        if !self.customers.is_empty() {
            words.push("--".to_owned());
            words.extend(self.customers.iter().cloned());
        }
        words
    }
}
