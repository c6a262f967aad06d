//! Sites and their gateways.

use std::path::PathBuf;

use clap::{Subcommand, ValueHint};
use serde_json::json;
use thinlane_model::{Endpoint, SiteName};
use thinlane_wire::api::{Code, Done, NewSite, Reason, SiteView};

use super::{Door, check_code_file, invitation, parse_words, show_code};
use crate::api::paths::{item, verb};
use crate::context::Context;
use crate::failure::Result;
use crate::out::{Table, png, qr, text, time};

#[derive(Subcommand)]
#[command(arg_required_else_help = true)]
pub enum Site {
    /// Add a site
    Add {
        /// Its name: letters, digits and . _ - + @
        name: SiteName,
        /// Where engineers reach the gateway directly; without it lanes go through the relay
        #[arg(long, value_name = "HOST:PORT")]
        endpoint: Option<Endpoint>,
    },
    /// List sites
    Ls,
    /// Show one site, by name or id
    Show {
        /// A name or an id
        name: String,
    },
    /// Print a one-time code with which a gateway enrols
    Token {
        /// A name or an id
        name: String,
        /// Show it as a QR code as well, with where to trade it and the controller's fingerprint
        #[arg(long)]
        qr: bool,
        /// Write the QR code here as a picture (PNG, 0600): for a printer, or a phone without a terminal
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        png: Option<PathBuf>,
        /// Write the code here (0600) instead of printing it
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: Option<PathBuf>,
    },
    /// Let a gateway work again that was frozen because two machines had its key
    Unfreeze {
        /// A name or an id
        name: String,
        /// Why; it is written into the log
        #[arg(long, value_parser = parse_words)]
        reason: String,
    },
    /// Let a gateway with an expired certificate renew it
    Renew {
        /// A name or an id
        name: String,
    },
}

pub async fn run(context: &Context, command: Site) -> Result<()> {
    let client = context.client()?;
    let out = context.out;
    match command {
        Site::Add { name, endpoint } => {
            let site: SiteView = client.post("/sites", &NewSite { site: name, endpoint }).await?;
            out.show(&site, |site| format!("site {} is {}", site.site, site.id))?;
            out.hint(&format!("next: thinlane site token {}", site.site));
            Ok(())
        }
        Site::Ls => {
            let sites: Vec<SiteView> = client.list("/sites", usize::MAX).await?;
            out.list(&sites, "there is no site yet; thinlane site add NAME", table)
        }
        Site::Show { name } => {
            let site: SiteView = client.get(&item("sites", name)).await?;
            out.show(&site, show)
        }
        Site::Token { name, qr, png, out: file } => {
            check_code_file("--out", file.as_deref())?;
            if let Some(png) = &png {
                crate::home::check_output("--png", png, |_| false)?;
            }
            let code: Code = client.post(&verb("sites", &name, "token"), &json!({})).await?;
            let door = Door::of(context);
            // Shown first: the code exists from now on, whatever becomes of its picture.
            show_code(context, &code, door.as_ref(), file.as_deref())?;
            let line = invitation(door.as_ref(), &code.code);
            if let Some(png) = png {
                let picture = png::qr(&line)?;
                crate::home::write_private(&png, &picture, context.home.owner())?;
                out.hint(&format!("its QR code is in {}; whoever sees it can enrol", png.display()));
            }
            if let Some(door) = door {
                let file = file.as_ref().map_or("FILE".to_owned(), |file| file.display().to_string());
                out.hint(&format!("on the gateway: {}", door.command(&file)));
            }
            // Last, so that all of it is on a small screen. A file was asked for so that nobody sees the code.
            if qr && file.is_none() && !out.json {
                match qr::render(&line, out.colour) {
                    Some(picture) => out.line(picture.trim_end_matches('\n'))?,
                    None => out.hint("the code is too long for a QR code"),
                }
            }
            Ok(())
        }
        Site::Unfreeze { name, reason } => {
            let site: SiteView = client.post(&verb("sites", name, "unfreeze"), &Reason { reason }).await?;
            out.show(&site, show)
        }
        Site::Renew { name } => {
            let _: Done = client.post(&verb("sites", &name, "renew"), &json!({})).await?;
            out.show(&json!({ "site": name, "renew": true }), |_| {
                format!("the gateway of {name} may renew its certificate")
            })
        }
    }
}

/// When, and how long ago: at night nobody subtracts.
fn seen(at: thinlane_model::Wall) -> String {
    let ago = thinlane_tui::text::about(at.until(time::now()).as_millis());
    format!("{} ({ago} ago)", time::local(at))
}

fn table(sites: &[SiteView]) -> Table {
    let mut table = Table::new(&["site", "id", "state", "ready", ">lanes", "version", "last seen", "notes"]);
    for site in sites {
        table.row([
            site.site.to_string(),
            site.id.to_string(),
            site.state.clone(),
            if site.ready { "yes" } else { "no" }.to_owned(),
            site.lanes.to_string(),
            text::or_dash(site.agent_version.as_ref()),
            time::local_or_dash(site.last_seen_at),
            notes(site),
        ]);
    }
    table
}

/// What a person should notice.
fn notes(site: &SiteView) -> String {
    let mut notes = Vec::new();
    if site.isolated {
        notes.push("isolated by its own switch".to_owned());
    }
    if site.locked {
        notes.push("locked".to_owned());
    }
    if let Some(why) = &site.why_not_ready {
        notes.push(why.clone());
    }
    notes.join("; ")
}

fn show(site: &SiteView) -> String {
    let clock = |millis: i64| match millis.abs() {
        0..50 => "in step with the controller".to_owned(),
        _ => format!("{:+.1} s against the controller", millis as f64 / 1000.0),
    };
    text::pairs(&[
        ("site", site.site.to_string()),
        ("id", site.id.to_string()),
        ("state", site.state.clone()),
        ("ready", if site.ready { "yes" } else { "no" }.to_owned()),
        ("notes", notes(site)),
        ("open lanes", site.lanes.to_string()),
        ("path", site.endpoint.as_ref().map_or("relay".to_owned(), |endpoint| format!("direct, {endpoint}"))),
        ("agent", text::or_dash(site.agent_version.as_ref())),
        ("backend", text::or_dash(site.backend.as_ref())),
        ("enrolled", time::local_or_dash(site.enrolled_at)),
        ("last seen", site.last_seen_at.map_or_else(|| "never".to_owned(), seen)),
        ("clock", site.clock_offset_ms.map(clock).unwrap_or_default()),
        ("certificate until", time::local_or_dash(site.certificate_expires_at)),
        ("generation", site.generation.to_string()),
    ])
}
