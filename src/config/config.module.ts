import { type DynamicModule, Module } from '@nestjs/common';
import type { Config } from './config.js';

/** Token of the configuration. */
export const CONFIG = Symbol('config');

/** Makes the configuration known to all modules. */
@Module({})
export class ConfigModule {
  static with(config: Config): DynamicModule {
    return {
      module: ConfigModule,
      global: true,
      providers: [{ provide: CONFIG, useValue: config }],
      exports: [CONFIG],
    };
  }
}
