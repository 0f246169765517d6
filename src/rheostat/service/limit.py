"""The limits of a node, each with the name under which an error reports it."""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.model.subject import SubjectLimits

__all__ = ["Limits"]

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a node; all can be configured.

    Attributes:
        max_commit_bytes: A Commit request, decompressed.
        max_request_bytes: Any other request, decompressed.
        max_value_bytes: One value, as canonical JSON.
        max_item_bytes: One setting or segment, in its stored form.
        max_snapshot_bytes: All settings of an environment, in their stored form.
        max_condition_depth: Nesting of a condition.
        max_rules: Rules of a setting in an environment.
        max_settings: Settings of an environment.
        max_segments: Segments of a project.
        max_mutations: Mutations of a change-set.
        max_open_drafts: Drafts of a project that are neither committed nor cancelled.
        max_drafts_bytes: The mutations of all these, in their stored form.
        max_streams: Open watches of this process, over all keys.
        max_streams_per_key: Open watches of one key (in open mode: of everybody).
        max_streams_per_address: Open watches of one IP address.
        max_writes_per_second: Writes of one key in a second, dry runs included (in open mode: of everybody), and
            events of one public key.
        max_reports_per_second: Reports of clients that one key sends in a second (in open mode: everybody).
        max_clients_per_key: Clients of an environment that are known under one key (in open mode: under none);
            further ones are served, and appear in no list or rollout.
        max_asks_per_second: Calls of GetRollout with `ask` of one key in a second.
        max_type_sets: Different sets of types that the clients of one key have declared in an environment.
        max_type_bytes: Their characters, together.
        max_filters: Distinct filters of open watches that are served; further ones are ignored, and `Hello` says
            so.
        max_webhooks: Webhooks of a project.
        max_subjects: Subjects of an environment.
        max_subject_keys: Keys of a subject.
        max_traits: Traits of a subject.
        max_trait_bytes: One trait, as canonical JSON.
        max_subject_bytes: Keys, traits and overrides of a subject, as canonical JSON.
        max_overrides: Overrides of a subject.
        max_memberships: Subjects that one is a member of.
        max_subject_events: Names of events that are counted of one subject.
        max_answer_bytes: Subjects of one answer.
        max_concurrent_snapshots: Snapshots being sent at one time; others are asked to come back.
        max_header_bytes: Headers of a request, as `rheostat serve` takes them.
        max_header_seconds: From the beginning of a connection or request to the end of its headers, there.
        max_request_seconds: From there to the end of the request's body, there.
        max_idle_seconds: For which a connection without a request stays open, there.
    """

    max_commit_bytes: int = 32 * MIB
    max_request_bytes: int = 1 * MIB
    max_value_bytes: int = 256 * KIB
    max_item_bytes: int = 512 * KIB
    max_snapshot_bytes: int = 64 * MIB
    max_condition_depth: int = 32
    max_rules: int = 5_000
    max_settings: int = 10_000
    max_segments: int = 2_000
    max_mutations: int = 50_000
    max_open_drafts: int = 1_000
    max_drafts_bytes: int = 256 * MIB
    max_streams: int = 12_000
    max_streams_per_key: int = 10_000
    max_streams_per_address: int = 10_000
    max_writes_per_second: int = 2_000
    max_reports_per_second: int = 5_000
    max_clients_per_key: int = 50_000
    max_asks_per_second: int = 20
    max_type_sets: int = 1_000
    max_type_bytes: int = 32 * MIB
    max_filters: int = 64
    max_webhooks: int = 100
    max_subjects: int = 2_000_000
    max_subject_keys: int = 20
    max_traits: int = 100
    max_trait_bytes: int = 4 * KIB
    max_subject_bytes: int = 64 * KIB
    max_overrides: int = 100
    max_memberships: int = 100
    max_subject_events: int = 200
    max_answer_bytes: int = 16 * MIB
    max_concurrent_snapshots: int = 16
    max_header_bytes: int = 64 * KIB
    max_header_seconds: int = 10
    max_request_seconds: int = 120
    max_idle_seconds: int = 75

    @property
    def subjects(self) -> SubjectLimits:
        """Those of subjects, as a store takes them."""
        return SubjectLimits(
            max_subjects=self.max_subjects,
            max_subject_keys=self.max_subject_keys,
            max_traits=self.max_traits,
            max_trait_bytes=self.max_trait_bytes,
            max_subject_bytes=self.max_subject_bytes,
            max_overrides=self.max_overrides,
            max_memberships=self.max_memberships,
            max_subject_events=self.max_subject_events,
        )
