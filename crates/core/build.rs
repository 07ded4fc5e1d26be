//! The migrations are embedded by a macro that Cargo cannot see into.
fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
