//! What a caller may do: roles per instance.

use std::fmt::Display;
use std::sync::Arc;

use http::Extensions;
use kiln_cas::access::{Authorizer, Refused, Right};

use super::failures::{Failures, Reason};
use super::pattern::Pattern;
use super::roles::{Role, Roles, in_words, role_for};

/// Roles in the instances that one of the patterns matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    pub roles: Roles,
    pub instances: Vec<Pattern>,
    /// `service/environment`: for whose hosts an agent may speak.
    pub services: Vec<Pattern>,
    /// Merge queues that may be changed or run.
    pub queues: Vec<Pattern>,
}

impl Scope {
    fn covers(&self, instance: &str) -> bool {
        self.instances.iter().any(|pattern| pattern.matches(instance))
    }

    fn covers_all(&self) -> bool {
        self.instances.iter().any(Pattern::is_everything)
    }

    /// Whether the scope lets an agent speak for the hosts of a service. Whoever administers
    /// everything may speak for any host.
    fn hosts(&self, service: &str) -> bool {
        let named = self.roles.contains(Role::Agent)
            && self.services.iter().any(|pattern| pattern.matches(service));
        named || (self.roles.contains(Role::Admin) && self.covers_all())
    }

    /// Whether the scope gives a right on a merge queue. Whoever administers everything may change
    /// and run any queue.
    fn queues(&self, right: Right, queue: &str) -> bool {
        let named = self.queues.iter().any(|pattern| pattern.matches(queue));
        (named && self.roles.grants(right))
            || (self.roles.contains(Role::Admin) && self.covers_all())
    }
}

/// The rights that one credential (a token or a client certificate) gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The name of the credential's owner; `None`: the rights are everybody's.
    pub name: Option<Arc<str>>,
    pub scopes: Vec<Scope>,
}

impl Access {
    fn roles(&self, covers: impl Fn(&Scope) -> bool) -> Roles {
        let scopes = self.scopes.iter().filter(|scope| covers(scope));
        scopes.fold(Roles::default(), |roles, scope| roles.union(scope.roles))
    }
}

/// Who sent a request: all its credentials together. Travels in the request's extensions.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The rights of the connection's client certificate together with those that everybody has.
    pub connection: Arc<Access>,
    /// The rights of the request's token; `None`: the request has none.
    pub token: Option<Arc<Access>>,
}

impl Caller {
    /// The name of the token's owner, else of the certificate's.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.accesses().find_map(|access| access.name.as_ref())
    }

    fn accesses(&self) -> impl Iterator<Item = &Access> {
        self.token.iter().chain([&self.connection]).map(Arc::as_ref)
    }

    fn roles(&self, covers: impl Fn(&Scope) -> bool + Copy) -> Roles {
        self.accesses().fold(Roles::default(), |roles, access| roles.union(access.roles(covers)))
    }

    pub fn may(&self, right: Right, instance: &str) -> bool {
        self.roles(|scope| scope.covers(instance)).grants(right)
    }

    /// Whether the caller has the right in all instances.
    pub fn may_everywhere(&self, right: Right) -> bool {
        self.roles(Scope::covers_all).grants(right)
    }

    /// Whether the caller has the right in one instance at least.
    pub fn may_somewhere(&self, right: Right) -> bool {
        self.roles(|_| true).grants(right)
    }

    pub fn check(&self, right: Right, instance: &str) -> Result<(), Refused> {
        if self.may(right, instance) {
            return Ok(());
        }
        let held = self.roles(|scope| scope.covers(instance));
        Err(self.refused(right, &format!("in instance {instance:?}"), held))
    }

    pub fn check_everywhere(&self, right: Right) -> Result<(), Refused> {
        if self.may_everywhere(right) {
            return Ok(());
        }
        let held = self.roles(Scope::covers_all);
        Err(self.refused(right, "in all instances (\"*\")", held))
    }

    pub fn check_somewhere(&self, right: Right) -> Result<(), Refused> {
        if self.may_somewhere(right) {
            return Ok(());
        }
        Err(self.refused(right, "in any instance", self.roles(|_| true)))
    }

    /// `service`: with its environment behind a slash.
    pub fn check_host(&self, service: &str) -> Result<(), Refused> {
        if self.accesses().any(|access| access.scopes.iter().any(|scope| scope.hosts(service))) {
            return Ok(());
        }
        let held = self.held("services", |scope| scope.services.as_slice());
        Err(self.refused(Right::Host, &format!("of the service {service}"), held))
    }

    pub fn check_queue(&self, right: Right, queue: &str) -> Result<(), Refused> {
        if self
            .accesses()
            .any(|access| access.scopes.iter().any(|scope| scope.queues(right, queue)))
        {
            return Ok(());
        }
        let held = self.held("queues", |scope| scope.queues.as_slice());
        Err(self.refused(right, &format!("called {queue:?}"), held))
    }

    /// All roles of the caller, and the names (of services or queues) that some of them are for, in
    /// words for a message.
    fn held(&self, what: &str, names: impl Fn(&Scope) -> &[Pattern]) -> String {
        let scopes = self.accesses().flat_map(|access| &access.scopes);
        let all: Vec<_> = scopes.flat_map(names).map(ToString::to_string).collect();
        let mut held = self.roles(|_| true).to_string();
        if !all.is_empty() {
            held += &format!(", for the {what} {}", all.join(", "));
        }
        held
    }

    fn refused(&self, right: Right, place: &str, held: impl Display) -> Refused {
        let (what, needed) = (in_words(right), role_for(right));
        match self.name() {
            None => Refused::Unauthenticated(format!(
                "to {what} {place} credentials with the role {needed} are needed, and none came: \
                 send a bearer token or show a client certificate"
            )),
            Some(name) => Refused::Denied(format!(
                "{name} may not {what} {place}: the role {needed} is missing (it has {held}); \
                 roles are given in the server's access files"
            )),
        }
    }
}

/// Decides by the [`Caller`] in a request's extensions. A request without one is refused: it
/// came past whoever takes requests in.
#[derive(Debug, Clone)]
pub struct RoleAuthorizer(pub Arc<Failures>);

fn caller(extensions: &Extensions) -> Result<&Caller, Refused> {
    extensions.get().ok_or_else(|| Refused::Unauthenticated("it is not known who calls".to_owned()))
}

impl RoleAuthorizer {
    fn counted(&self, result: Result<(), Refused>) -> Result<(), Refused> {
        result.inspect_err(|refused| self.0.count(Reason::of(refused)))
    }
}

impl Authorizer for RoleAuthorizer {
    fn check(&self, extensions: &Extensions, right: Right, instance: &str) -> Result<(), Refused> {
        self.counted(caller(extensions).and_then(|caller| caller.check(right, instance)))
    }

    fn check_everywhere(&self, extensions: &Extensions, right: Right) -> Result<(), Refused> {
        self.counted(caller(extensions).and_then(|caller| caller.check_everywhere(right)))
    }

    fn check_host(&self, extensions: &Extensions, service: &str) -> Result<(), Refused> {
        self.counted(caller(extensions).and_then(|caller| caller.check_host(service)))
    }

    fn check_queue(
        &self,
        extensions: &Extensions,
        right: Right,
        queue: &str,
    ) -> Result<(), Refused> {
        self.counted(caller(extensions).and_then(|caller| caller.check_queue(right, queue)))
    }

    fn name(&self, extensions: &Extensions) -> Option<Arc<str>> {
        caller(extensions).ok()?.name().cloned()
    }

    /// Whoever can make a tool do what it should not decides what its later actions result in, and what
    /// others get for them from the cache. So tools are for those alone who may write results anyway,
    /// and each has its own. Who is not known by a name is nobody in particular.
    fn tools(&self, extensions: &Extensions, instance: &str) -> Option<Arc<str>> {
        if !self.allows(extensions, Right::WriteResults, instance) {
            return None;
        }
        let caller = caller(extensions).ok()?;
        Some(caller.name().cloned().unwrap_or_else(|| "".into()))
    }

    /// A question that nobody is refused by counts as no failure.
    fn allows(&self, extensions: &Extensions, right: Right, instance: &str) -> bool {
        caller(extensions).is_ok_and(|caller| caller.may(right, instance))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::roles::Role;

    fn access(name: Option<&str>, role: Role, instances: &[&str]) -> Arc<Access> {
        let instances = instances.iter().map(|text| Pattern::from((*text).to_owned())).collect();
        let services = vec![Pattern::from("api/*".to_owned())];
        let queues = vec![Pattern::from("app-*".to_owned())];
        let scope = Scope { roles: [role].into_iter().collect(), instances, services, queues };
        Arc::new(Access { name: name.map(Into::into), scopes: vec![scope] })
    }

    #[test]
    fn credentials_add_up_and_instances_stay_apart() {
        let caller = Caller {
            connection: access(None, Role::ReadCache, &["*"]),
            token: Some(access(Some("token ci"), Role::Execute, &["main", "team/*"])),
        };
        assert!(caller.may(Right::Read, "anything"));
        assert!(caller.may(Right::Execute, "team/a"));
        assert!(!caller.may(Right::Execute, "other"));
        assert!(caller.may_somewhere(Right::Execute) && !caller.may_everywhere(Right::Execute));
        assert!(caller.may_everywhere(Right::Read));
        let denied = caller.check(Right::WriteResults, "main").unwrap_err();
        let Refused::Denied(message) = denied else { panic!("{denied:?}") };
        assert_eq!(
            message,
            "token ci may not write action results in instance \"main\": the role write-cache is \
             missing (it has read-cache, execute); roles are given in the server's access files"
        );
    }

    #[test]
    fn who_shows_nothing_is_asked_for_credentials() {
        let caller = Caller { connection: access(None, Role::ReadCache, &["open"]), token: None };
        assert!(caller.check(Right::Read, "open").is_ok());
        let refused = caller.check(Right::Read, "closed").unwrap_err();
        assert!(matches!(&refused, Refused::Unauthenticated(text) if text.contains("read-cache")));
    }

    #[test]
    fn tools_are_each_callers_own_and_only_for_who_may_write_results() {
        let authorizer = RoleAuthorizer(Arc::default());
        let tools = |name: Option<&str>, roles: &[Role], instance: &str| {
            let token = roles.iter().map(|role| access(name, *role, &["main"]).scopes.clone());
            let token = Access { name: name.map(Into::into), scopes: token.flatten().collect() };
            let mut extensions = Extensions::new();
            let connection = Arc::default();
            extensions.insert(Caller { connection, token: Some(Arc::new(token)) });
            authorizer.tools(&extensions, instance).map(|group| group.to_string())
        };
        let both = [Role::Execute, Role::WriteCache];
        assert_eq!(tools(Some("ci"), &both, "main").as_deref(), Some("ci"));
        assert_eq!(tools(Some("al"), &both, "main").as_deref(), Some("al"));
        assert_eq!(tools(Some("ci"), &both, "other"), None);
        assert_eq!(tools(Some("laptop"), &[Role::Execute], "main"), None);
        assert_eq!(authorizer.tools(&Extensions::new(), "main"), None);
    }

    #[test]
    fn an_agent_speaks_for_its_services_alone_and_reads_nothing() {
        let host = |role, instances: &[&str], service: &str| {
            let token = Some(access(Some("token web"), role, instances));
            Caller { connection: Arc::default(), token }.check_host(service)
        };
        assert_eq!(host(Role::Agent, &["*"], "api/prod"), Ok(()));
        let refused = host(Role::Agent, &["*"], "web/prod").unwrap_err();
        let Refused::Denied(text) = &refused else { panic!("{refused:?}") };
        assert!(text.contains("of the service web/prod"), "{text}");
        assert!(text.contains("it has agent, for the services api/*"), "{text}");
        assert_eq!(host(Role::Admin, &["*"], "web/prod"), Ok(()));
        assert!(host(Role::Admin, &["main"], "web/prod").is_err());
        assert!(host(Role::Worker, &["*"], "api/prod").is_err());
        let token = Some(access(Some("token web"), Role::Agent, &["*"]));
        let agent = Caller { connection: Arc::default(), token };
        assert!(agent.may_somewhere(Right::Host) && !agent.may_somewhere(Right::Read));
        let nobody = Caller { connection: Arc::default(), token: None };
        assert!(matches!(nobody.check_host("api/prod"), Err(Refused::Unauthenticated(_))));
    }

    #[test]
    fn a_queue_is_changed_and_run_by_those_who_may_alone() {
        let check = |role, right, queue: &str| {
            let token = Some(access(Some("token bot"), role, &["*"]));
            Caller { connection: Arc::default(), token }.check_queue(right, queue)
        };
        assert_eq!(check(Role::Queue, Right::Queue, "app-main"), Ok(()));
        assert_eq!(check(Role::QueueRunner, Right::Land, "app-main"), Ok(()));
        assert_eq!(check(Role::Admin, Right::Land, "other"), Ok(()));
        for (role, right, queue) in [
            (Role::Queue, Right::Land, "app-main"),
            (Role::QueueRunner, Right::Queue, "app-main"),
            (Role::Execute, Right::Queue, "app-main"),
            (Role::Queue, Right::Queue, "other"),
        ] {
            assert!(check(role, right, queue).is_err(), "{role} {right:?} {queue}");
        }
        let Err(Refused::Denied(text)) = check(Role::Queue, Right::Queue, "other") else {
            panic!("it is refused")
        };
        assert!(
            text.contains("called \"other\"") && text.contains("for the queues app-*"),
            "{text}"
        );
    }

    #[test]
    fn a_request_that_nobody_took_in_is_refused() {
        let authorizer = RoleAuthorizer(Arc::default());
        let nobody = Extensions::new();
        assert!(authorizer.check(&nobody, Right::Read, "").is_err());
        assert!(!authorizer.allows(&nobody, Right::Read, ""));
        assert!(authorizer.check_everywhere(&nobody, Right::Work).is_err());
    }

    proptest! {
        #[test]
        fn everywhere_means_each_and_each_means_somewhere(
            place in "[ab/]{0,4}", pattern in "[ab/*]{0,4}", role in 0..Role::ALL.len(),
        ) {
            let token = access(Some("t"), Role::ALL[role].0, &[&pattern]);
            let caller = Caller { connection: Arc::default(), token: Some(token) };
            for right in [Right::Read, Right::WriteResults, Right::Execute, Right::Work] {
                prop_assert!(!caller.may_everywhere(right) || caller.may(right, &place));
                prop_assert!(!caller.may(right, &place) || caller.may_somewhere(right));
                prop_assert_eq!(caller.check(right, &place).is_ok(), caller.may(right, &place));
            }
        }
    }
}
