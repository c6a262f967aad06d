//! Sites, and the codes that enrol their gateways.

use thinlane_model::{Endpoint, EnrolmentId, SiteId, SiteName, Span};

use super::{CODES, Deciding, Outcome, TECH, unknown};
use crate::{Answer, Decided, Enrolment, Event, Refusal, Site};

const MOST_SITES: usize = 100_000;
/// How long an enrolment code is good.
const CODE_LIFE: Span = Span::from_secs(24 * 3600);

impl<'a> Deciding<'a, '_> {
    pub(super) fn add_site(&mut self, name: SiteName, endpoint: Option<Endpoint>) -> Outcome {
        self.person_with("adding a site", TECH)?;
        if self.world.site_named(&name).is_some() {
            return Err(Refusal::Exists { kind: "site", name: name.to_string() });
        }
        if self.world.sites.len() >= MOST_SITES {
            return Err(Refusal::Limit { what: "sites", most: MOST_SITES });
        }
        let world = self.world;
        let id = self.fresh(SiteId::from_random, |id| world.sites.contains_key(id))?;
        let site = Site { id, name, endpoint, created_at: self.now(), generation: 1, frozen: None };
        Ok(Decided { events: vec![Event::SiteAdded { site }], answer: Answer::Site(id) })
    }

    pub(super) fn issue_code(&mut self, site: &SiteName, code_hash: String) -> Outcome {
        self.person_with("making an enrolment code", CODES)?;
        let site = self.named_site(site)?;
        let shaped = code_hash.len() == 64 && code_hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !shaped || self.world.index.codes.contains_key(&code_hash) {
            let problem = "a fresh SHA-256 in lower-case hexadecimal is needed".to_owned();
            return Err(Refusal::Invalid { field: "code", problem });
        }
        let world = self.world;
        let id = self.fresh(EnrolmentId::from_random, |id| world.enrolments.contains_key(id))?;
        let (created_at, expires_at) = (self.now(), self.now() + CODE_LIFE);
        let code = Enrolment { id, site: site.id, code_hash, created_at, expires_at, used_at: None };
        Ok(Decided { events: vec![Event::SiteCode { code }], answer: Answer::Code { id, expires_at } })
    }

    pub(super) fn named_site(&self, name: &SiteName) -> Result<&'a Site, Refusal> {
        self.world.site_named(name).ok_or_else(|| unknown("site", name))
    }
}
