/**
 * The process's environment: this file alone touches it. Apart from the settings, since it is wanted before they are read.
 */
export type Environment = Readonly<Record<string, string | undefined>>;

export function environment(): Environment {
  return process.env;
}
