/**
 * Imported for its effect, first of all by each thread: Node's crash reports ask every thread by itself whether they may
 * show the process's environment, which holds secrets (Wall: T71).
 */
process.report.excludeEnv = true;
