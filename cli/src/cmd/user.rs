//! People.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use serde_json::json;
use thinlane_model::{Login, OrgName, Role, Wall};
use thinlane_wire::api::{Code, Done, LockView, NewUser, Reason, UserView};

use super::{check_code_file, parse_words, show_code};
use crate::api::paths::{item, verb};
use crate::context::Context;
use crate::failure::Result;
use crate::out::{Table, text, time};

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum User {
    /// Add a person and print the set-up code for their first log-in
    Add(Add),
    /// List people
    Ls,
    /// Show one person
    Show {
        /// The log-in name
        login: Login,
    },
    /// Lock a person out: log-ins and sessions end at once
    Lock {
        /// The log-in name
        login: Login,
        /// Why; it is written into the log
        #[arg(long, value_parser = parse_words)]
        reason: String,
    },
    /// Let a locked person in again
    Unlock {
        /// The log-in name
        login: Login,
        /// Why; it is written into the log
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Take password and authenticator away and print a new set-up code
    Reset {
        /// The log-in name
        login: Login,
        /// Write the code here (0600) instead of printing it
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: Option<PathBuf>,
    },
}

#[derive(Args)]
pub struct Add {
    /// The log-in name: letters, digits and . _ - + @
    login: Login,
    /// The person's name
    #[arg(long, value_parser = parse_words)]
    name: String,
    /// The organisation of an external person
    #[arg(long)]
    org: Option<OrgName>,
    /// Who answers for an external person
    #[arg(long, value_name = "LOGIN")]
    sponsor: Option<Login>,
    /// Any of requester, approver, ops, site-tech, auditor, admin
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', required = true)]
    roles: Vec<Role>,
    /// The day on which the account ends
    #[arg(long, value_name = "DATE", value_parser = time::parse_moment)]
    until: Option<Wall>,
    /// Write the set-up code here (0600) instead of printing it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    out: Option<PathBuf>,
}

pub async fn run(context: &Context, command: User) -> Result<()> {
    let client = context.client()?;
    let out = context.out;
    match command {
        User::Add(add) => {
            let body = NewUser {
                user: add.login,
                name: add.name,
                org: add.org,
                sponsor: add.sponsor,
                roles: add.roles.into_iter().collect(),
                until: add.until,
            };
            check_code_file("--out", add.out.as_deref())?;
            let code: Code = client.post("/users", &body).await?;
            show_code(context, &code, None, add.out.as_deref())?;
            hint_setup(context, &body.user, add.out.as_deref());
            Ok(())
        }
        User::Ls => {
            let people: Vec<UserView> = client.list("/users", usize::MAX).await?;
            out.list(&people, "there is nobody", table)
        }
        User::Show { login } => {
            let person: UserView = client.get(&item("users", login)).await?;
            out.show(&person, show)
        }
        User::Lock { login, reason } => {
            let lock: LockView = client.post(&verb("users", login, "lock"), &Reason { reason }).await?;
            super::lock::tell(context, &lock)
        }
        User::Unlock { login, reason } => {
            let _: Done = client.post(&verb("users", &login, "unlock"), &Reason { reason }).await?;
            out.show(&json!({ "user": login, "locked": false }), |_| format!("{login} is unlocked"))
        }
        User::Reset { login, out } => {
            check_code_file("--out", out.as_deref())?;
            let code: Code = client.post(&verb("users", &login, "reset"), &json!({})).await?;
            show_code(context, &code, None, out.as_deref())?;
            hint_setup(context, &login, out.as_deref());
            Ok(())
        }
    }
}

/// What the person has to run with the code.
fn hint_setup(context: &Context, login: &Login, file: Option<&Path>) {
    let pinned = context.home.read_ca().ok().flatten().map(|ca| crate::api::Fingerprint::of(&ca).to_string());
    if let (Ok(url), Some(fingerprint)) = (context.controller(), pinned) {
        context.out.hint(&format!(
            "{login} runs: thinlane setup {} --ca-fingerprint {fingerprint} --user {login} --code-file {}",
            url.as_str().trim_end_matches('/'),
            file.unwrap_or(Path::new("FILE")).display()
        ));
    }
}

fn table(people: &[UserView]) -> Table {
    let mut table = Table::new(&["login", "name", "organisation", "roles", "until", "state"]);
    for person in people {
        table.row([
            person.user.to_string(),
            person.name.clone(),
            text::or_dash(person.org.as_ref()),
            text::joined(&person.roles),
            time::local_or_dash(person.until),
            person.state.clone(),
        ]);
    }
    table
}

fn show(person: &UserView) -> String {
    text::pairs(&[
        ("login", person.user.to_string()),
        ("name", person.name.clone()),
        ("organisation", text::or_dash(person.org.as_ref())),
        ("sponsor", text::or_dash(person.sponsor.as_ref())),
        ("roles", text::joined(&person.roles)),
        ("state", person.state.clone()),
        ("created", time::local(person.created_at)),
        ("until", time::local_or_dash(person.until)),
    ])
}
