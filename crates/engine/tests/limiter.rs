//! The contract of the limiter: the same cases in this process and on a real Redis, and what only
//! one of the two can show.

mod limiter {
    mod batches;
    mod bench;
    mod contract;
    mod failure;
    mod in_process;
    mod on_redis;
    mod schedules;
    mod topologies;
}
