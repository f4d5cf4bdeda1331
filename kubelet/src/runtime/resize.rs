//! Carries a granted resize out: the pod's cgroup and its running containers, in an order that keeps
//! requests within limits and containers within their pod at every moment (upstream's
//! `doPodResizeAction`).

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::Manager;
use super::actions::{Actions, Resize};
use super::state::{PodState, State};
use crate::pod::{PodExt, is_sidecar};
use crate::resources::{Amounts, CgroupConfig, container_resources};

/// The resource being changed. Memory and CPU go one after the other: one may grow while the other
/// shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Cpu,
    Memory,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    /// Limit, then request.
    fn of(self, amounts: Amounts) -> (i64, i64) {
        match self {
            Self::Cpu => (amounts.cpu_limit, amounts.cpu_request),
            Self::Memory => (amounts.memory_limit, amounts.memory_request),
        }
    }
}

impl Manager {
    /// Brings cgroup and containers to what `pod`, at its granted size, says. The error is for the user;
    /// what was done before it stays done, and the next round goes on from there.
    pub(super) async fn resize(&self, pod: &Pod, state: &PodState, actions: &Actions) -> Result<(), String> {
        let wanted = self.cgroups.wanted(pod);
        let current = self
            .cgroups
            .current(pod)
            .map_err(|e| format!("unable to get pod cgroup config for pod {:?}: {e}", pod.described()))?;
        self.check_memory(pod, state, actions, &wanted, &current).await?;
        for part in [Part::Memory, Part::Cpu] {
            let updates = ordered(&actions.resize, part);
            if updates.is_empty() && !actions.resize_pod {
                continue;
            }
            self.resize_part(pod, part, &updates, &wanted, &current).await?;
        }
        if pod.pod_spec().resources.is_some() {
            self.allocations.set_actuated_pod(pod.uid(), pod.pod_spec().resources.clone());
        }
        Ok(())
    }

    async fn resize_part(
        &self,
        pod: &Pod,
        part: Part,
        updates: &[&Resize],
        wanted: &CgroupConfig,
        current: &CgroupConfig,
    ) -> Result<(), String> {
        // Limits that go away are left as they are, as upstream does.
        let (limit_now, limit, request_now, request) = match part {
            Part::Memory => (current.memory, wanted.memory.or(current.memory), 0, 0),
            Part::Cpu => (
                current.cpu_quota.filter(|quota| *quota > 0),
                wanted.cpu_quota.or(current.cpu_quota).filter(|quota| *quota > 0),
                current.cpu_shares.unwrap_or(0),
                wanted.cpu_shares.unwrap_or(0),
            ),
        };
        // No limit is more than any limit.
        let grows = limit.is_none_or(|new| limit_now.is_some_and(|old| new > old)) && limit != limit_now;
        let set_limit = || {
            let config = match part {
                Part::Memory => CgroupConfig { memory: limit, ..Default::default() },
                Part::Cpu => CgroupConfig { cpu_quota: Some(limit.unwrap_or(-1)), ..Default::default() },
            };
            self.cgroups.set(pod, &config).map_err(|e| e.to_string())
        };
        let set_request = || {
            let config = CgroupConfig { cpu_shares: Some(request), ..Default::default() };
            self.cgroups.set(pod, &config).map_err(|e| e.to_string())
        };
        if grows {
            set_limit()?;
        }
        if request > request_now {
            set_request()?;
        }
        for update in updates {
            self.update_container(pod, update, part).await?;
        }
        if request < request_now {
            set_request()?;
        }
        if !grows && limit != limit_now {
            set_limit()?;
        }
        Ok(())
    }

    async fn update_container(&self, pod: &Pod, update: &Resize, part: Part) -> Result<(), String> {
        let Some((_, container)) = pod.container(&update.name) else { return Ok(()) };
        let granted = container.resources.clone().unwrap_or_default();
        let mut actuated = self.allocations.actuated(pod.uid()).remove(&update.name).unwrap_or_default();
        take(&mut actuated, &granted, part.name());
        let stepped = Container { resources: Some(actuated.clone()), ..container };
        let settings = container_resources(pod, &stepped, self.settings.memory_capacity, self.settings.cfs_quota);
        self.cri.update_container_resources(&update.id, settings).await.map_err(|e| e.to_string())?;
        self.allocations.set_actuated(pod.uid(), &update.name, actuated);
        Ok(())
    }

    /// Refuses to shrink memory below what is in use: the kernel would kill for it.
    async fn check_memory(
        &self,
        pod: &Pod,
        state: &PodState,
        actions: &Actions,
        wanted: &CgroupConfig,
        current: &CgroupConfig,
    ) -> Result<(), String> {
        let shrinks = |new: i64, old: i64| new != 0 && (old == 0 || new < old);
        let pod_shrinks = wanted.memory.filter(|new| shrinks(*new, current.memory.unwrap_or(0)));
        let containers: Vec<&Resize> =
            actions.resize.iter().filter(|r| shrinks(r.desired.memory_limit, r.current.memory_limit)).collect();
        let mut errors = Vec::new();
        if let Some(limit) = pod_shrinks
            && let Some(usage) = self.cgroups.memory_usage(pod).filter(|usage| *usage >= limit)
        {
            errors.push(format!("attempting to set pod memory limit ({limit}) below current usage ({usage})"));
        }
        if !containers.is_empty() {
            let filter = proto::cri::ContainerStatsFilter {
                label_selector: [(super::labels::POD_UID.to_owned(), pod.uid().to_owned())].into(),
                ..Default::default()
            };
            let stats = self
                .cri
                .list_container_stats(Some(filter))
                .await
                .map_err(|_| format!("unable to read memory usage for pod {:?}", pod.described()))?;
            for update in containers {
                let running = state.containers.iter().any(|c| c.id == update.id && c.state == State::Running);
                let usage = stats
                    .iter()
                    .find(|s| s.attributes.as_ref().is_some_and(|a| a.id == update.id))
                    .and_then(|s| s.memory.as_ref())
                    .and_then(|m| m.usage_bytes.or(m.working_set_bytes))
                    .and_then(|v| i64::try_from(v.value).ok());
                match usage.filter(|_| running) {
                    Some(usage) if usage >= update.desired.memory_limit => errors.push(format!(
                        "attempting to set container {:?} memory limit ({}) below current usage ({usage})",
                        update.name, update.desired.memory_limit
                    )),
                    _ => {}
                }
            }
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(format!("cannot decrease memory limits: {}", errors[0])),
            _ => Err(format!("cannot decrease memory limits: [{}]", errors.join(", "))),
        }
    }
}

/// The updates that change a part, those that shrink it first.
fn ordered(updates: &[Resize], part: Part) -> Vec<&Resize> {
    let mut changing: Vec<&Resize> =
        updates.iter().filter(|update| part.of(update.current) != part.of(update.desired)).collect();
    changing.sort_by_key(|update| {
        let ((limit_now, request_now), (limit, request)) = (part.of(update.current), part.of(update.desired));

        if limit != limit_now { limit == 0 || (limit_now != 0 && limit > limit_now) } else { request > request_now }
    });
    changing
}

/// Puts one resource's granted amounts in place of what was there.
fn take(actuated: &mut ResourceRequirements, granted: &ResourceRequirements, name: &str) {
    for (to, from) in [(&mut actuated.requests, &granted.requests), (&mut actuated.limits, &granted.limits)] {
        match from.as_ref().and_then(|list| list.get(name)) {
            Some(amount) => {
                to.get_or_insert_default().insert(name.to_owned(), amount.clone());
            }
            None => {
                if let Some(list) = to.as_mut() {
                    list.remove(name);
                }
            }
        }
    }
}

/// Whether something that runs does not have what was granted yet.
pub fn is_behind(
    pod: &Pod,
    state: &PodState,
    actuated: &std::collections::BTreeMap<String, ResourceRequirements>,
    actuated_pod: Option<&ResourceRequirements>,
) -> bool {
    let level = pod.pod_spec().resources.as_ref();
    let mut containers = pod.pod_spec().containers.iter().chain(pod.init_containers().iter().filter(|c| is_sidecar(c)));
    let behind = containers.any(|c| {
        let running = state.find(&c.name).is_some_and(|s| s.state == State::Running);
        let set = actuated.get(&c.name);
        running
            && set.is_some_and(|set| Amounts::of(Some(set), actuated_pod) != Amounts::of(c.resources.as_ref(), level))
    });
    behind || (level.is_some() && actuated_pod.is_some() && Amounts::of(level, None) != Amounts::of(actuated_pod, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resize(name: &str, current: (i64, i64), desired: (i64, i64)) -> Resize {
        let amounts = |(cpu_limit, memory_limit)| Amounts { cpu_limit, memory_limit, ..Default::default() };
        Resize { id: name.into(), name: name.into(), current: amounts(current), desired: amounts(desired) }
    }

    #[test]
    fn what_shrinks_goes_first_and_what_stays_is_left_alone() {
        let updates = [
            resize("grows", (100, 10), (200, 10)),
            resize("shrinks", (200, 10), (100, 20)),
            resize("unbound", (100, 10), (0, 10)),
        ];
        let names = |part| ordered(&updates, part).iter().map(|u| u.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(Part::Cpu), ["shrinks", "grows", "unbound"]);
        assert_eq!(names(Part::Memory), ["shrinks"]);
    }

    #[test]
    fn one_resource_is_taken_over_at_a_time() {
        let of = |value| serde_json::from_value::<ResourceRequirements>(value).unwrap();
        let mut actuated = of(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1"}}));
        let granted = of(json!({"requests": {"cpu": "2", "memory": "2Gi"}}));
        take(&mut actuated, &granted, "cpu");
        assert_eq!(actuated, of(json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {}})));
    }
}
