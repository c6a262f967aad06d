//! People: add, reset.

use thinlane_model::Login;

use super::{ADMIN, Deciding, Outcome, done, text};
use crate::{Event, NewPerson, Person, Refusal};

const MOST_PEOPLE: usize = 100_000;

impl Deciding<'_, '_> {
    /// The first admin is the controller's own doing; all others are an admin's.
    pub(super) fn add_person(&mut self, new: NewPerson) -> Outcome {
        self.person_or_system("adding a person", ADMIN)?;
        if self.world.person(&new.login).is_some() {
            return Err(Refusal::Exists { kind: "user", name: new.login.to_string() });
        }
        if self.world.people.len() >= MOST_PEOPLE {
            return Err(Refusal::Limit { what: "people", most: MOST_PEOPLE });
        }
        let invalid = |field, problem: &str| Err(Refusal::Invalid { field, problem: problem.to_owned() });
        if new.roles.is_empty() {
            return invalid("role", "at least one is needed");
        }
        match (&new.org, &new.sponsor) {
            (Some(_), None) => return invalid("sponsor", "an external person, one with an organisation, needs one"),
            (None, Some(_)) => return invalid("org", "a sponsor is for external people, who have an organisation"),
            (Some(_), Some(sponsor)) => self.sponsor(sponsor)?,
            (None, None) => {}
        }
        if new.until.is_some_and(|until| until <= self.now()) {
            return invalid("until", "lies in the past");
        }
        let user = Person {
            name: text("name", &new.name, true)?,
            login: new.login,
            org: new.org,
            sponsor: new.sponsor,
            roles: new.roles,
            until: new.until,
            created_at: self.now(),
            set_up_at: None,
        };
        done(vec![Event::UserAdded { user }])
    }

    fn sponsor(&self, login: &Login) -> Result<(), Refusal> {
        let sponsor = self.known_person(login)?;
        if sponsor.is_external() {
            let problem = format!("{login} is external too; a sponsor is one of your own people");
            return Err(Refusal::Invalid { field: "sponsor", problem });
        }
        self.world.standing(sponsor, self.now())
    }

    pub(super) fn reset_person(&mut self, login: Login) -> Outcome {
        self.person_or_system("resetting a person", ADMIN)?;
        self.known_person(&login)?;
        done(vec![Event::UserReset { login }])
    }
}
