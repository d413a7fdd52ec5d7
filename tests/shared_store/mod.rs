//! The shared store in adversity, as callers of the API see it: faults of Redis and of the way to it ([`faults`],
//! [`failover`]), several coordinators ([`coordinators`]), values of another release ([`versions`]) or damaged ones
//! ([`unreadable`]), and how much one call of Redis may be asked ([`bounds`]).

mod bounds;
mod coordinators;
mod failover;
mod faults;
mod front;
mod unreadable;
mod versions;
