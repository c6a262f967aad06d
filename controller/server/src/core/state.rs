//! What the writer owns, and one step on it.

use std::collections::BTreeMap;

use thinlane_model::{Endpoint, Login, Now, SessionId};
use thinlane_policy::PolicyState;
use thinlane_session::{
    Actor, Answer, Command, Context, Decided, Entry, Event, LockTarget, Note, Observation, Pools, Refusal, Refused,
    RowKind, World,
};
use thinlane_store::{RowChange, SecretChange, Store, Tx};
use thinlane_tlog::canonical;
use thinlane_wire::api::{ErrorBody, ErrorCode};

use super::credential::{Credential, KIND_CREDENTIAL};
use super::tokens::{Ended, KIND_TOKEN, Token, Tokens, Why};
use crate::api::error::refused as refused_words;
use crate::auth::{Kept, Who};

/// The state: what is stored, and what a restart forgets.
pub struct State {
    store: Store,
    world: World,
    credentials: BTreeMap<Login, Credential>,
    tokens: Tokens,
    policy: PolicyState,
    pools: Pools,
    relay: Endpoint,
    /// Why the rows could not be read again after a failed commit.
    broken: Option<String>,
}

impl State {
    /// Reads everything from the store.
    pub fn load(store: Store, policy: PolicyState, pools: Pools, relay: Endpoint) -> anyhow::Result<Self> {
        let world = read_world(&store)?;
        let credentials = read_credentials(&store)?;
        let tokens = Tokens::default();
        tokens.load(&store)?;
        Ok(Self { store, world, credentials, tokens, policy, pools, relay, broken: None })
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// What gateways reported last of the sessions that are live.
    pub fn observed(&self) -> Vec<(SessionId, Observation)> {
        let seen = |id: &SessionId| self.world.observation(id).cloned();
        self.world.all_live_sessions().filter_map(|session| Some((session.id, seen(&session.id)?))).collect()
    }

    /// Takes back what was reported before a restart, until the gateways report again: counters only ever rise.
    pub fn remember(&mut self, seen: Vec<(SessionId, Observation)>) {
        for (session, seen) in seen {
            let Some(site) = self.world.session(&session).map(|session| session.site) else { continue };
            self.world.observe(&site, session, seen);
        }
    }

    pub(super) fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    pub fn policy(&self) -> &PolicyState {
        &self.policy
    }

    /// What WireGuard ends dial.
    pub fn relay(&self) -> &Endpoint {
        &self.relay
    }

    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A person's password hash, second factor and codes.
    pub fn credential(&self, login: &Login) -> Option<&Credential> {
        self.credentials.get(login)
    }

    /// Wrong tries that were kept over a restart.
    pub fn kept_tries(&self) -> anyhow::Result<Vec<(Who, Kept)>> {
        let mut tries = Vec::new();
        for kind in Who::KINDS {
            for row in self.store.secrets(kind)? {
                tries.extend(Who::of(kind, &row.id).map(|who| Ok((who, serde_json::from_str(&row.doc)?))));
            }
        }
        tries.into_iter().collect()
    }

    pub(super) fn broken(&self) -> Option<String> {
        self.broken.clone()
    }

    /// One step and its commit, before the writer runs.
    pub fn change_once<T>(&mut self, step: impl FnOnce(&mut Step<'_>) -> Result<T, ErrorBody>) -> anyhow::Result<T> {
        let mut on = Step::new(self, crate::clock::now());
        let done = step(&mut on);
        let tx = on.into_tx();
        self.store.commit(&Vec::from_iter(tx))?;
        done.map_err(|body| anyhow::anyhow!(body.error.message))
    }

    /// After a start: timers run, and the effects say what relay and gateways need.
    pub(super) fn start(&mut self) {
        self.world.effects_after_restart(crate::clock::now());
    }

    /// After a failed commit: forgets what the batch changed. The relay and the gateways were told nothing of it.
    pub(super) fn reload(&mut self) {
        let fresh = read_world(&self.store).and_then(|world| Ok((world, read_credentials(&self.store)?)));
        match fresh.and_then(|fresh| self.tokens.load(&self.store).map(|()| fresh)) {
            Ok((world, credentials)) => {
                let seen = self.observed();
                self.world = world;
                self.credentials = credentials;
                self.world.effects_after_restart(crate::clock::now());
                while self.world.poll_effect().is_some() {}
                self.remember(seen);
                self.broken = None;
            }
            Err(error) => self.broken = Some(format!("the state cannot be read: {error:#}")),
        }
    }
}

fn read_world(store: &Store) -> anyhow::Result<World> {
    let rows = store.rows()?.into_iter().map(|row| Ok((row.kind.parse::<RowKind>()?, row.id, row.doc)));
    let rows: Vec<_> = rows.collect::<Result<_, thinlane_session::RowError>>()?;
    Ok(World::from_rows(rows)?)
}

fn read_credentials(store: &Store) -> anyhow::Result<BTreeMap<Login, Credential>> {
    store
        .secrets(KIND_CREDENTIAL)?
        .into_iter()
        .map(|row| Ok((row.id.parse()?, serde_json::from_str(&row.doc)?)))
        .collect()
}

/// One job's changes; they become durable with the batch, or not at all.
pub struct Step<'a> {
    state: &'a mut State,
    now: Now,
    tx: Tx,
}

impl<'a> Step<'a> {
    pub(super) fn new(state: &'a mut State, now: Now) -> Self {
        Self { state, now, tx: Tx::default() }
    }

    pub fn state(&self) -> &State {
        self.state
    }

    pub fn world(&self) -> &World {
        &self.state.world
    }

    pub fn now(&self) -> Now {
        self.now
    }

    /// Decides a command and applies what follows; a refusal is in the API's words.
    pub fn command(&mut self, actor: &Actor, command: Command) -> Result<Answer, ErrorBody> {
        self.decide(actor, command)?.map_err(|refusal| refused_words(&refusal))
    }

    /// Decides a command without doing it: why it would be refused. A refused attempt is logged all the same.
    pub fn consider(&mut self, actor: &Actor, command: Command) -> Result<(), ErrorBody> {
        match self.look_at(actor, command) {
            Ok(_) => Ok(()),
            Err(refused) => {
                self.apply(actor, refused.events)?;
                Err(refused_words(&refused.refusal))
            }
        }
    }

    /// Decides a command and applies what follows, also what the log says of a refused attempt.
    pub fn decide(&mut self, actor: &Actor, command: Command) -> Result<Result<Answer, Refusal>, ErrorBody> {
        match self.look_at(actor, command) {
            Ok(decided) => {
                self.apply(actor, decided.events)?;
                Ok(Ok(decided.answer))
            }
            Err(refused) => {
                self.apply(actor, refused.events)?;
                Ok(Err(refused.refusal))
            }
        }
    }

    fn look_at(&mut self, actor: &Actor, command: Command) -> Result<Decided, Refused> {
        let mut random = |to: &mut [u8]| getrandom::fill(to).expect("the kernel gives randomness once it has booted");
        let state = &mut *self.state;
        let mut context = Context {
            now: self.now,
            policy: &state.policy,
            relay: Some(&state.relay),
            pools: state.pools,
            random: &mut random,
        };
        state.world.decide(actor, command, &mut context)
    }

    /// Logs something that happened outside the world.
    pub fn note(&mut self, actor: &Actor, note: Note) -> Result<(), ErrorBody> {
        self.command(actor, Command::Note(note)).map(drop)
    }

    /// Applies events; all of them can be logged, or none is applied.
    pub(super) fn apply(&mut self, actor: &Actor, events: Vec<Event>) -> Result<(), ErrorBody> {
        let entries: Vec<Entry> =
            events.into_iter().map(|event| Entry::new(self.now.wall, actor.clone(), event)).collect();
        let bytes: Result<Vec<_>, _> = entries.iter().map(canonical::to_vec).collect();
        let bytes = bytes.map_err(|error| {
            ErrorBody::new(ErrorCode::Invalid, format!("this cannot be logged, so it was not done: {error}"))
        })?;
        for entry in &entries {
            self.state.world.apply(entry, self.now.mono);
            self.end_tokens(&entry.event);
        }
        self.tx.entries.extend(bytes);
        Ok(())
    }

    /// Whoever is locked, reset or logged out loses every token in the same transaction.
    fn end_tokens(&mut self, event: &Event) {
        match event {
            Event::UserReset { login } => self.end_tokens_of(login, Why::Reset),
            Event::LockSet { lock } => match &lock.target {
                LockTarget::User(login) => self.end_tokens_of(login, Why::Locked),
                LockTarget::Org(org) => {
                    let people = self.state.world.people().filter(|person| person.org.as_ref() == Some(org));
                    let people: Vec<Login> = people.map(|person| person.login.clone()).collect();
                    people.iter().for_each(|login| self.end_tokens_of(login, Why::Locked));
                }
                LockTarget::Site(_) | LockTarget::Asset(_) => {}
            },
            _ => {}
        }
    }

    /// Takes a gateway's counters; they are neither logged nor stored.
    pub fn observe(
        &mut self,
        site: &thinlane_model::SiteId,
        session: thinlane_model::SessionId,
        seen: Observation,
    ) -> bool {
        self.state.world.observe(site, session, seen)
    }

    /// Puts another policy in force.
    pub fn set_policy(&mut self, policy: PolicyState) -> Result<(), ErrorBody> {
        self.state.policy = policy;
        self.policy_changed()
    }

    /// Logs which policy is in force, and ends what it forbids.
    pub fn policy_changed(&mut self) -> Result<(), ErrorBody> {
        self.command(&Actor::System, Command::PolicyChanged).map(drop)
    }

    /// Deletes tokens and codes whose time has passed.
    pub fn drop_expired_secrets(&mut self) {
        if let Err(error) = self.state.store.drop_expired_secrets(self.now.wall.as_millis()) {
            tracing::warn!(%error, "old tokens cannot be deleted");
        }
    }

    /// Stores a person's credential.
    pub fn put_credential(&mut self, login: &Login, credential: Credential) {
        let doc = serde_json::to_string(&credential).expect("a credential is texts and numbers");
        self.put_secret(KIND_CREDENTIAL, login.to_string(), Some(doc), None);
        self.state.credentials.insert(login.clone(), credential);
    }

    /// Keeps wrong tries over a restart.
    pub fn keep_tries(&mut self, tries: &[(Who, Kept)]) {
        for (who, kept) in tries {
            let doc = serde_json::to_string(kept).expect("numbers and moments");
            let (kind, id) = who.key();
            self.put_secret(kind, id, Some(doc), Some(kept.forgotten().as_millis()));
        }
    }

    /// Forgets the wrong tries of an account.
    pub fn forget_tries(&mut self, login: &Login) {
        let (kind, id) = Who::Account(login.to_string()).key();
        self.put_secret(kind, id, None, None);
    }

    /// Makes a token for a person; its text is nowhere else.
    pub fn issue_token(&mut self, login: &Login) -> anyhow::Result<(zeroize::Zeroizing<String>, thinlane_model::Wall)> {
        let (text, id, token) = Tokens::make(login, self.now.wall)?;
        let expires = token.expires;
        self.put_token(id.clone(), &token);
        self.state.tokens.put(id, token);
        Ok((text, expires))
    }

    /// Ends one token, by its id.
    pub fn end_token(&mut self, id: String, why: Why) {
        if let Some(token) = self.state.tokens.end(&id, Ended { at: self.now.wall, why }) {
            self.put_token(id, &token);
        }
    }

    fn end_tokens_of(&mut self, login: &Login, why: Why) {
        for id in self.state.tokens.of(login) {
            self.end_token(id, why);
        }
    }

    fn put_token(&mut self, id: String, token: &Token) {
        let doc = serde_json::to_string(token).expect("a token's record is texts and numbers");
        self.put_secret(KIND_TOKEN, id, Some(doc), Some(token.forgotten().as_millis()));
    }

    fn put_secret(&mut self, kind: &str, id: String, doc: Option<String>, expires: Option<i64>) {
        self.tx.secrets.push(SecretChange { kind: kind.to_owned(), id, doc, expires });
    }

    /// What is to be written; `None`: nothing.
    pub(super) fn into_tx(mut self) -> Option<Tx> {
        let rows = self.state.world.take_changed_rows();
        self.tx.rows =
            rows.into_iter().map(|(key, doc)| RowChange { kind: key.kind.to_string(), id: key.id, doc }).collect();
        let empty = self.tx.entries.is_empty() && self.tx.rows.is_empty() && self.tx.secrets.is_empty();
        (!empty).then_some(self.tx)
    }
}
