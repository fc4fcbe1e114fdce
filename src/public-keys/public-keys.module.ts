import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { PublicKey } from './public-key.entity.js';
import { PublicKeysController } from './public-keys.controller.js';
import { PublicKeysService } from './public-keys.service.js';

@Module({
  imports: [TypeOrmModule.forFeature([PublicKey])],
  controllers: [PublicKeysController],
  providers: [PublicKeysService],
  exports: [PublicKeysService],
})
export class PublicKeysModule {}
