import { Global, Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DataSource, type DataSourceOptions } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';
import { dataSourceOptions } from './data-source.js';
import { runMigrations } from './migrate.js';
import { Notices } from './notices.js';

/** @throws Error with a sentence where the database cannot be reached, or refuses the user */
async function connect(options: DataSourceOptions): Promise<DataSource> {
  const dataSource = await new DataSource(options).initialize().catch((error: Error) => {
    throw new Error(`the database cannot be used (${error.message}): check DATABASE_URL`, { cause: error });
  });
  await runMigrations(dataSource);
  return dataSource;
}

/** The connection to the database, its schema up to date. */
@Global()
@Module({
  imports: [
    TypeOrmModule.forRootAsync({
      inject: [CONFIG],
      useFactory: ({ database }: Config) => ({
        ...dataSourceOptions(database.url!, database.poolSize),
        retryAttempts: 10,
        retryDelay: 1000,
      }),
      dataSourceFactory: (options) => connect(options!),
    }),
  ],
  providers: [Notices],
  exports: [Notices],
})
export class DatabaseModule {}
