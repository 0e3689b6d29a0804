//! The longer texts of `--help`: what the program is, and examples for each command.

pub(super) const ABOUT: &str = "A build system for fleets of Cloudflare Workers.

Reads one YAML file per customer, writes a TypeScript module, a content-hashed bundle and a wrangler file for each, and deploys \
only what changed, below Cloudflare's API rate limit.";

pub(super) const AFTER: &str = "\
Each command includes the ones before it: check → build → plan → deploy.

  flotilla init my-fleet         create a project
  flotilla check                 report every error in every file
  flotilla build                 update out/, only where bytes differ
  flotilla plan                  show what a deploy would do, and what it costs
  flotilla dev                   run the fleet on this machine, and deploy on each save
  flotilla deploy --local        deploy to the local Cloudflare emulator
  flotilla deploy                deploy to Cloudflare (CLOUDFLARE_API_TOKEN, CLOUDFLARE_ACCOUNT_ID)

`flotilla help COMMAND` describes a command and its options.

Exit codes: 0 done · 1 errors in the files, or a failure before anything changed · 2 usage · 3 changes pending · 4 some changes \
failed · 5 refused · 70 a bug";

pub(super) const INIT: &str = "Examples:
  flotilla init my-fleet                         a new project with a customer and the consent pack
  flotilla init my-fleet --pack worker           a new project for a worker of your own
  flotilla init --pack dispatch                  add the pack for a dispatch namespace to this project
  flotilla init --ci github                      add .github/workflows/flotilla.yml to this project
  flotilla init --ci gitlab                      add .gitlab-ci.yml to this project
  flotilla init --ci github --print              print that workflow instead
  flotilla init --ci github --previews           add a workflow that deploys a preview of each pull request
  flotilla init --ci github --install 'cargo install --locked --path tools/flotilla'";

pub(super) const IMPORT: &str = "Examples:
  flotilla import ../shop --dry-run              show what would be written, and what can't be mapped
  flotilla -C fleet import ../shop               create a fleet, or add to it, in the folder fleet
  flotilla import . --exclude legacy             leave out the configurations in a folder
  flotilla import . --customer acme              import next to wrangler's own files
  flotilla -C fleet import --account ID          import what an account runs (CLOUDFLARE_API_TOKEN)

Reads wrangler.toml, wrangler.jsonc and wrangler.json with their environments, config/base/*.env, \
config/customers/NAME/ENVIRONMENT.env, and the workers' code. Secret values are never copied. Exits with 4 if something could not \
be mapped; everything else is written.";

pub(super) const NEW: &str = "Examples:
  flotilla new                                   ask for each setting
  flotilla new acme --domain consent.acme.example --database d1-new:acme-consent --yes
  flotilla new acme --local --database d1-new:acme-consent --yes    use the local emulator, without an account
  flotilla new acme --offline --destination posthog apiKey=phc_1 --label tier=gold --yes

The API token is entered at the prompt or read from the sources of secrets in fleet.yaml, never from the command line. If the command \
fails or is interrupted, every file and the account are left as they were.";

pub(super) const EDIT: &str = "Examples:
  flotilla edit                                  ask what to change
  flotilla edit acme --domain shop.acme.example --yes
  flotilla edit acme --set vars.LANGUAGE=de --unset vars.OLD --yes
  flotilla edit acme --add-environment staging --yes
  flotilla edit acme --disable Hotjar --destination posthog apiKey=phc_1 --yes
  pass show cloudflare | flotilla edit acme --rotate-token --yes

Preserves comments, order and quotes, and shows the difference before anything is written. If the command \
fails or is interrupted, every file and the account are left as they were.";

pub(super) const PLAN: &str = "Examples:
  flotilla plan                     plan the whole fleet
  flotilla plan acme bluebird       plan two customers
  flotilla plan -l tier=gold        plan every customer with a label
  flotilla plan --exit-code         exit with 3 if there are changes, for CI
  flotilla plan --json              print one JSON object, which includes the plan's digest
  flotilla plan --format markdown   print Markdown, for a comment on a pull request
  flotilla plan --out fleet.plan    save the plan for `flotilla deploy --plan fleet.plan`

Without --refresh, no request is sent and no token is needed: the plan compares the files with the state of the account in \
CLOUDFLARE_ACCOUNT_ID.";

pub(super) const DEPLOY: &str = "Examples:
  flotilla deploy --local                            deploy to the local Cloudflare emulator
  flotilla deploy                                    show the plan, ask, deploy
  flotilla deploy --dry-run                          show the plan only
  flotilla deploy --yes --env staging                deploy one environment, without asking
  flotilla deploy --yes acme                         deploy one customer
  flotilla deploy --yes --all --reason CVE-2026-1    upload every worker, changed or not
  flotilla deploy --plan fleet.plan                  apply what `flotilla plan --out fleet.plan` saved, and nothing else

Requires CLOUDFLARE_API_TOKEN and CLOUDFLARE_ACCOUNT_ID, unless fleet.yaml names others. Each secret is looked up in the sources in \
fleet.yaml (by default, the environment and .env) as CUSTOMER__NAME and then as NAME. Ctrl-C stops after the requests in flight; the next deploy continues from there.";

pub(super) const PREVIEW: &str = "Examples:
  flotilla preview up --id 123 acme           deploy a preview of acme
  flotilla preview up --id 123 --since main   deploy a preview of the customers that a branch changes
  flotilla preview up --id 123 --from production --days 3 --summary preview.md
  flotilla preview list                       list the fleet's previews, with their expiry
  flotilla preview down --id 123              remove one: domains first, then databases and workers
  flotilla preview down --expired --yes       remove the expired ones, for a nightly job
  flotilla preview down --all                 remove every preview of the fleet

A preview uses the settings of staging, or of `previews.from` in fleet.yaml, with `environments: { preview: … }` on top. Its workers \
call each other and have D1 databases of their own. Running `preview up` again deploys what changed.";

pub(super) const MIGRATIONS: &str = "Examples:
  flotilla migrations new add_orders     create the next migration of the pack
  flotilla migrations list               show how many databases have each migration
  flotilla migrations status acme        show what is pending for a customer
  flotilla migrations apply --dry-run    show what would be applied, and what it costs
  flotilla migrations apply --yes        apply pending migrations without uploading workers

A deploy applies them as well, in the same waves, before the upload of each worker.";

pub(super) const PRUNE: &str = "Examples:
  flotilla prune                     show what would be deleted, and ask
  flotilla prune --yes               delete workers that no spec defines, at most 10 or 10 %
  flotilla prune --domains           also delete domains and routes of workers that no longer exist

Lists the account's workers first. Workers of a customer whose spec has errors are kept. As long as any spec can't be read, nothing is deleted.";

pub(super) const DESTROY: &str = "Examples:
  flotilla destroy acme --dry-run    show what would be deleted
  flotilla destroy acme              show it, ask, then delete customers/acme.yaml and the customer's workers

Deletes the spec first and then every deployed worker, domain and route of the customer, in all environments. Databases, buckets and \
secrets are kept. If deleting fails halfway, run it again.";

pub(super) const ROLLBACK: &str = "Examples:
  flotilla rollback acme                 return to what ran before
  flotilla history acme                  list what ran, with record numbers
  flotilla rollback acme --to 1234       return to what this record deployed
  flotilla rollback --run 17             revert everything that deploy 17 uploaded

Uploads bundles that the state keeps, so it works while specs have errors. Domains, routes and crons are not changed. A worker that \
was rolled back is skipped by deploys until its bundle changes or its customer is named.";

pub(super) const VERIFY: &str = "Examples:
  flotilla verify                          check every deployed worker
  flotilla verify acme --deadline 300      keep trying, for a new domain whose certificate takes a while
  flotilla verify --local                  check the workers of the local emulator
  flotilla verify --junit verify.xml       also write a report for CI
  flotilla deploy --yes --verify           check what a deploy changed, right after it

Checks DNS and the certificate of each custom domain and route host, then what the pack's pack.yaml declares under `verify`. No \
credentials are sent. Exits with 4 if a check fails.";

pub(super) const SECRETS: &str = "Examples:
  flotilla secrets list acme                     list what acme needs, and where each value comes from
  flotilla secrets list --live                   compare with the secrets that are set at Cloudflare, and record which were deleted
  flotilla secrets check                         report what is missing, too large or unused
  flotilla secrets set TURSO_AUTH_TOKEN --customer acme       enter the value at a prompt
  pass show acme | flotilla secrets set TURSO_AUTH_TOKEN --customer acme
  flotilla secrets rotate SESSION_KEY            replace a value with a new random one

Values are never shown, and never read from the command line. `secrets` in fleet.yaml lists where they come from; by default, the \
environment and .env.";

pub(super) const EXPORT: &str = "Examples:
  flotilla export acme                                  write the folder export/acme
  flotilla export acme --env production --to acme.tar.gz    write an archive and acme.tar.gz.sha256
  flotilla export 'self-*' --form zip --to exports      write an archive for each customer
  flotilla export acme --form tar.gz --to - | ssh …     write to stdout
  flotilla export acme --workflow github --url https://exports.example.com/acme.tar.gz

An export contains the files from out/, a package.json that pins wrangler, and a README, but no secrets. `npm run deploy` in it deploys \
the same workers, with the same digests, as flotilla would. The same specs always give the same bytes.";

pub(super) const DEV: &str = "Examples:
  flotilla dev                  run the whole fleet on this machine
  flotilla dev acme             run one customer
  flotilla dev --env staging    run one environment

Starts the emulator, builds, and deploys to it. When a file changes, only what changed is deployed. Errors are \
printed, and the deployed workers keep running. Requires no account and no token. Press r to deploy again, q or Ctrl-C to stop. With --json, each \
deploy and each event is one object on a line of its own.";

pub(super) const LOGS: &str = "Examples:
  flotilla logs acme                            follow all workers of a customer
  flotilla logs acme --env production           follow one environment
  flotilla logs acme --status error             show only requests that failed
  flotilla logs acme --method POST --search timeout
  flotilla logs acme --json | jq .exceptions    print each event as Cloudflare sends it
  flotilla logs acme --local                    follow the workers of the local emulator

Uses Cloudflare's tails, as `wrangler tail` does: the token needs the permission `Workers Tail: Read`. Nothing is stored, and past \
events are not shown. flotilla reconnects if the connection is lost. Ctrl-C stops and deletes the tails.";

pub(super) const LOCAL: &str = "Examples:
  flotilla local                                     listen on port 8787
  curl http://c15t-acme.localhost:8787/health        call a deployed worker by its name
  curl http://127.0.0.1:8787/workers/c15t-acme/health    call it by path
  flotilla local --limit 20/10                       use a rate limit that is reached soon

API requests need the token in .flotilla/local/token, or one given with --token. Requests from web pages are rejected.

Faults: POST a list to /__local/faults, with that token and the content type application/json, for example
  [{\"match\": {\"method\": \"PUT\"}, \"times\": 2, \"do\": {\"status\": 429, \"retry_after\": 2}}]
  [{\"skip\": 3, \"do\": {\"set\": {\"result\": null}}}]     the fourth request is carried out, and its response is changed
Zones: POST a list to /__local/zones in the same way to change zones as Cloudflare's dashboard does, for example
  [{\"zone\": \"shop.example\", \"plan\": \"free\", \"set\": {\"rocket_loader\": \"on\"}}]
The audit log: POST {\"delay\": 60} to /__local/audit to delay its entries by 60 seconds, {\"silent\": true} to leave them out.
GET /__local/requests, with the token, lists the API requests.";

pub(super) const COMPLETIONS: &str = "To load them in every shell:
  bash        echo 'source <(flotilla completions bash)' >> ~/.bashrc
  zsh         echo 'source <(flotilla completions zsh)' >> ~/.zshrc
  fish        echo 'flotilla completions fish | source' > ~/.config/fish/completions/flotilla.fish
  PowerShell  Add-Content $PROFILE 'flotilla completions powershell | Out-String | Invoke-Expression'

Also completes the customers, environments, accounts, deploys and diagnostic codes of the project in the current folder.";
