//! fleet.yaml's policy for diagnostics: warnings that are turned off or are errors, for some customers or for all. Pure; doesn't know who
//! finds them, nor what follows from an error.

use std::collections::BTreeSet;

use serde::Serialize;
use wildmatch::WildMatch;

use flotilla_model::diagnostic::{Code, Diagnostic, Place, Severity};
use flotilla_model::spec::{FleetFile, Level};
use flotilla_spec::project::{Fleet, LeftOutRules};
use flotilla_spec::yaml::Document;

/// The list `diagnostics` of a fleet file, ready to be applied.
#[derive(Default)]
pub struct Policy {
    rules: Vec<Rule>,
    /// The entries that were left out as faulty.
    left_out: LeftOutRules,
}

struct Rule {
    code: Code,
    /// Without any: all customers, and diagnostics that belong to none.
    customers: Option<Vec<WildMatch>>,
    level: Level,
    reason: String,
    place: Place,
}

/// A diagnostic that was turned off, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suppressed {
    /// The diagnostic.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
    /// The reason that fleet.yaml gives.
    pub reason: String,
}

/// Diagnostics after a policy was applied.
#[derive(Clone, Default)]
pub struct Judged {
    /// The diagnostics that stay, with the policy's severity.
    pub diagnostics: Vec<Diagnostic>,
    /// The diagnostics that were turned off.
    pub suppressed: Vec<Suppressed>,
    /// The rules that matched something, by their position.
    pub matched: BTreeSet<usize>,
}

impl Judged {
    /// Appends another one's.
    pub fn append(&mut self, other: &mut Judged) {
        self.diagnostics.append(&mut other.diagnostics);
        self.suppressed.append(&mut other.suppressed);
        self.matched.append(&mut other.matched);
    }
}

impl Policy {
    /// Compiles the list of a fleet. A rule for a code that is an error is itself an error, and is left out.
    pub fn new(fleet: &Fleet) -> (Policy, Vec<Diagnostic>) {
        let (policy, mistakes) = Policy::compile(&fleet.document, &fleet.file);
        (Policy { left_out: fleet.left_out_rules.clone(), ..policy }, mistakes)
    }

    fn compile(document: &Document, file: &FleetFile) -> (Policy, Vec<Diagnostic>) {
        let (mut policy, mut mistakes) = (Policy::default(), Vec::new());
        for (index, rule) in file.diagnostics.iter().flatten().enumerate() {
            let step = index.to_string();
            let place = |key| document.place_of(["diagnostics", &step, key]);
            if rule.code.severity() == Severity::Error {
                let code = rule.code;
                let (message, help) = match rule.severity {
                    Level::Off => (format!("{code} is an error: it can't be turned off"), FIX),
                    Level::Warning => (format!("{code} is an error: it can't be made a warning"), FIX),
                    Level::Error => (format!("{code} is already an error"), "remove the entry"),
                };
                mistakes.push(Diagnostic::error(Code::LoweredError, place("severity"), message, help));
                continue;
            }
            policy.rules.push(Rule {
                code: rule.code,
                customers: rule.customers.as_ref().map(|globs| globs.iter().map(|glob| WildMatch::new(glob)).collect()),
                level: rule.severity,
                reason: rule.reason.clone(),
                place: place("code"),
            });
        }
        (policy, mistakes)
    }

    /// Applies the rules to the diagnostics of one customer, or to those that are no customer's. Of several rules for
    /// one diagnostic the last counts.
    pub fn judge(&self, customer: Option<&str>, found: Vec<Diagnostic>) -> Judged {
        let mut judged = Judged::default();
        // The severity of a warning, or whether it is turned off, is unknown if a rule about it is faulty.
        let is_known = |found: &Diagnostic| found.severity == Severity::Error || !self.left_out.has(found.code);
        let found: Vec<Diagnostic> = found.into_iter().filter(is_known).collect();
        if self.rules.is_empty() {
            judged.diagnostics = found;
            return judged;
        }
        for mut diagnostic in found {
            let mut last = None;
            for (index, rule) in self.rules.iter().enumerate() {
                if rule.code == diagnostic.code && rule.is_for(customer) {
                    judged.matched.insert(index);
                    last = Some(rule);
                }
            }
            match last.map(|rule| (rule.level, rule)) {
                Some((Level::Off, rule)) => {
                    judged.suppressed.push(Suppressed { diagnostic, reason: rule.reason.clone() });
                    continue;
                }
                Some((Level::Error, rule)) => {
                    diagnostic.severity = Severity::Error;
                    let label = format!("a warning that is an error here: {}", rule.reason);
                    diagnostic = diagnostic.also(rule.place.clone(), label);
                }
                Some((Level::Warning, _)) | None => {}
            }
            judged.diagnostics.push(diagnostic);
        }
        judged
    }

    /// Returns the rules that nothing was found for, in a check of the whole fleet that had no errors. Being diagnostics, they
    /// are judged themselves.
    pub fn unused(&self, matched: &BTreeSet<usize>) -> Judged {
        // Whether a worker is deployed is known only after the check of the files.
        let by_state = |index: &usize| self.rules[*index].code == Code::CalleeNotDeployed;
        let unused = |index: &usize| !matched.contains(index) && !by_state(index);
        let diagnostic = |index: usize| {
            let rule = &self.rules[index];
            let message = format!("this entry matches no {}", rule.code);
            let help = "remove it: what it was written for is fixed, or its customers are gone";
            Diagnostic::warning(Code::UnusedRule, rule.place.clone(), message, help)
        };
        let (about_rules, others): (Vec<usize>, Vec<usize>) =
            (0..self.rules.len()).filter(unused).partition(|index| self.rules[*index].code == Code::UnusedRule);
        let mut judged = self.judge(None, others.into_iter().map(diagnostic).collect());
        judged
            .diagnostics
            .extend(about_rules.into_iter().filter(|index| !judged.matched.contains(index)).map(diagnostic));
        judged
    }
}

const FIX: &str = "fix what it reports, and remove the entry: only warnings can be turned off";

impl Rule {
    fn is_for(&self, customer: Option<&str>) -> bool {
        match (&self.customers, customer) {
            (None, _) => true,
            (Some(globs), Some(customer)) => globs.iter().any(|glob| glob.matches(customer)),
            (Some(_), None) => false,
        }
    }
}

/// Sorted as diagnostics are, each one once.
pub fn sorted_suppressed(mut suppressed: Vec<Suppressed>) -> Vec<Suppressed> {
    suppressed.sort_by(|a, b| {
        let (x, y) = (&a.diagnostic, &b.diagnostic);
        (&x.place, x.code, &x.message, &a.reason).cmp(&(&y.place, y.code, &y.message, &b.reason))
    });
    suppressed.dedup();
    suppressed
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_spec::yaml;

    fn policy(rules: &str) -> (Policy, Vec<Diagnostic>) {
        let text = format!("name: t\npacks: {{ t: {{ path: t }} }}\ndiagnostics:\n{rules}");
        let (document, mistakes) = yaml::parse("fleet.yaml", text.as_bytes());
        assert_eq!(mistakes, vec![]);
        let document = document.expect("a document");
        let file: FleetFile = serde_json::from_value(document.root.to_value()).expect("a fleet file");
        Policy::compile(&document, &file)
    }

    fn unreachable(customer: &str) -> Vec<Diagnostic> {
        let place = Place::file(&format!("customers/{customer}.yaml"));
        vec![Diagnostic::warning(Code::Unreachable, place, "nothing reaches it", "give it a domain")]
    }

    #[test]
    fn the_last_rule_that_fits_counts() {
        let (policy, mistakes) = policy(
            "- { code: N0309, severity: error, reason: all are reached }\n\
             - { code: N0309, customers: [shop-*, 'a?'], severity: off, reason: not yet open }\n\
             - { code: N0309, customers: [shop-old], severity: warning, reason: closed soon }\n",
        );
        assert_eq!(mistakes, vec![]);
        let judged = |customer: &str| {
            let judged = policy.judge(Some(customer), unreachable(customer));
            let severities: Vec<Severity> = judged.diagnostics.iter().map(|diagnostic| diagnostic.severity).collect();
            let reasons: Vec<String> = judged.suppressed.into_iter().map(|off| off.reason).collect();
            (severities, reasons, judged.matched.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(judged("acme"), (vec![Severity::Error], vec![], vec![0]));
        assert_eq!(judged("shop-new"), (vec![], vec!["not yet open".to_owned()], vec![0, 1]));
        assert_eq!(judged("ab"), (vec![], vec!["not yet open".to_owned()], vec![0, 1]));
        assert_eq!(judged("shop-old"), (vec![Severity::Warning], vec![], vec![0, 1, 2]));
        assert_eq!(judged("my-shop-new"), (vec![Severity::Error], vec![], vec![0]));
        // A raised one says by what.
        let diagnostic = policy.judge(Some("acme"), unreachable("acme")).diagnostics.remove(0);
        assert_eq!(diagnostic.related[0].0.to_string(), "fleet.yaml:4:11");
    }

    #[test]
    fn errors_stay_what_they_are() {
        let (policy, mistakes) = policy(
            "- { code: S0201, severity: off, reason: later }\n- { code: S0202, severity: warning, reason: later }\n\
             - { code: S0203, severity: error, reason: now }\n",
        );
        let diagnostic: Vec<String> =
            mistakes.iter().map(|d| format!("{} {} {}", d.code, d.place, d.message)).collect();
        assert_eq!(
            diagnostic,
            [
                "F0504 fleet.yaml:4:28 S0201 is an error: it can't be turned off",
                "F0504 fleet.yaml:5:28 S0202 is an error: it can't be made a warning",
                "F0504 fleet.yaml:6:28 S0203 is already an error",
            ]
        );
        let unknown = Diagnostic::error(Code::UnknownKey, Place::file("customers/acme.yaml"), "unknown", "none");
        assert_eq!(policy.judge(Some("acme"), vec![unknown.clone()]).diagnostics, [unknown]);
    }

    #[test]
    fn a_rule_without_use_is_told_unless_that_is_turned_off_in_turn() {
        let diagnostic = |rules: &str, customers: &[&str]| {
            let (policy, _) = policy(rules);
            let mut judged = Judged::default();
            for customer in customers {
                judged.append(&mut policy.judge(Some(customer), unreachable(customer)));
            }
            let unused = policy.unused(&judged.matched);
            let places: Vec<String> =
                unused.diagnostics.iter().map(|diagnostic| diagnostic.place.to_string()).collect();
            (places, unused.suppressed.len())
        };
        let rules = "- { code: N0309, customers: [a*], severity: off, reason: r }\n- { code: N0311, severity: off, reason: r }\n";
        assert_eq!(diagnostic(rules, &["acme"]), (vec!["fleet.yaml:5:11".to_owned()], 0));
        assert_eq!(diagnostic(rules, &["bluebird"]).0.len(), 2);
        let off = format!("{rules}- {{ code: F0505, severity: off, reason: r }}\n");
        assert_eq!(diagnostic(&off, &["acme"]), (vec![], 1));
        let idle = "- { code: F0505, severity: off, reason: r }\n";
        assert_eq!(diagnostic(idle, &[]), (vec!["fleet.yaml:4:11".to_owned()], 0));
    }
}
