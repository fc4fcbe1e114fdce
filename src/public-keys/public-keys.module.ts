import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DeletedPublicKeysController } from './deleted-public-keys.controller.js';
import { PublicKey } from './public-key.entity.js';
import { PublicKeysController } from './public-keys.controller.js';
import { PublicKeysService } from './public-keys.service.js';

@Module({
  imports: [TypeOrmModule.forFeature([PublicKey])],
  controllers: [PublicKeysController, DeletedPublicKeysController],
  providers: [PublicKeysService],
  exports: [PublicKeysService],
})
export class PublicKeysModule {}
