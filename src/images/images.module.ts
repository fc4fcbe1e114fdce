import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DeletedImagesController } from './deleted-images.controller.js';
import { ImageArtifacts } from './image-artifacts.js';
import { Image } from './image.entity.js';
import { ImageLinks } from './image-links.js';
import { ImagesController } from './images.controller.js';
import { ImagesService } from './images.service.js';

@Module({
  imports: [TypeOrmModule.forFeature([Image])],
  controllers: [ImagesController, DeletedImagesController],
  providers: [ImagesService, ImageLinks, ImageArtifacts],
  exports: [ImageLinks],
})
export class ImagesModule {}
